"""The command line. Exit codes: 0 success, 1 refused or failed, 2 wrong input or settings, 3 no daemon is running.

What ends with 2 ends the same way when it is tried again, until a person has changed something. launchd would try
it every 10 s forever, and there is only one way to tell it not to: its agent ends with 0. (Beside another daemon it
does not end, but waits for its turn: see `instance.wait_until_free`.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from draftd import __version__
from draftd.errors import ConfigError, DraftdError, NotRunningError
from draftd.files import hold_streams
from draftd.instance import is_agent
from draftd.terminal_text import take_every_text

EXIT_FAILED, EXIT_INPUT, EXIT_NOT_RUNNING = 1, 2, 3
RUN, MEASURE, SET_UP, CONNECT = "Run", "Measure and check", "Set up", "Connect"

# Each verb, in the order of the help: its module in draftd.commands, its name there, and its part of the help.
VERBS: Mapping[str, tuple[str, str, str]] = {
    "up": ("serve", "up", RUN),
    "status": ("control", "status", RUN),
    "ps": ("control", "ps", RUN),
    "chat": ("chat", "chat", RUN),
    "run": ("chat", "run_prompt", RUN),
    "logs": ("logs", "logs", RUN),
    "restart": ("control", "restart", RUN),
    "start": ("control", "start", RUN),
    "stop": ("control", "stop", RUN),
    "reload": ("control", "reload_profiles", RUN),
    "down": ("control", "down", RUN),
    "test": ("test", "smoke_test", MEASURE),
    "bench": ("bench", "run_bench", MEASURE),
    "doctor": ("doctor", "doctor", MEASURE),
    "check": ("check", "check", MEASURE),
    "version": ("overview", "version", MEASURE),
    "init": ("setup", "init", SET_UP),
    "pull": ("setup", "pull", SET_UP),
    "prompts": ("setup", "prompts", SET_UP),
    "cache": ("cache", "app", SET_UP),
    "launchd": ("launchd", "app", SET_UP),
    "service": ("service", "app", SET_UP),
    "opencode": ("opencode", "opencode", CONNECT),
    "clients": ("opencode", "clients", CONNECT),
    "launch": ("launch", "launch", CONNECT),
    "prometheus": ("observe", "prometheus", CONNECT),
    "grafana": ("observe", "grafana", CONNECT),
}


class Commands(Mapping[str, Any]):
    """The command of each verb. Its module is imported when it is asked for: all together take 0.2 s."""

    def __getitem__(self, verb: str) -> Any:
        module, name, panel = VERBS[verb]
        found = getattr(import_module(f"draftd.commands.{module}"), name)
        if isinstance(found, typer.Typer):
            group = found
        else:
            group = typer.Typer(add_completion=False)
            group.command(name=verb)(found)
        command: Any = typer.main.get_command(group)
        command.name, command.rich_help_panel = verb, panel
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


class Verbs(TyperGroup):
    """The group of all verbs."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = Commands()


def _say_types_plainly(option: Any, argument: Any) -> None:
    """Let typer's help say no '<bool>' behind a flag, and no '<str>' behind an argument that has a name already."""
    own = option.display_type_rich
    option.display_type_rich = lambda self, ctx: "" if self.is_flag else own(self, ctx)
    argument.display_type_rich = lambda self, ctx: ""


_say_types_plainly(TyperOption, TyperArgument)

app = typer.Typer(
    cls=Verbs,
    help="Speculative decoding on your machine: mlx_lm.server workers behind one OpenAI-compatible address.",
    epilog="Example: draftd up fast. Without a model of your own: draftd up --demo",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def main() -> None:
    """Entry point: errors that a person can act on are shown without a traceback."""
    hold_streams()
    take_every_text()
    try:
        app(prog_name="draftd")
    except BrokenPipeError:  # as in `draftd logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (DraftdError, OSError) as error:
        sys.exit(_told(error))


def _told(error: DraftdError | OSError) -> int:
    """Say what went wrong; returns the exit code."""
    from draftd.console import err, hinted

    err.say(hinted(f"draftd: {error}"), style="red")
    codes = {ConfigError: EXIT_INPUT, NotRunningError: EXIT_NOT_RUNNING}
    code = codes.get(type(error), EXIT_FAILED)
    if code == EXIT_INPUT and is_agent():
        err.say("launchd does not try again before the next login; 'draftd launchd install' does")
        return 0
    return code


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"draftd {__version__}")  # our own text, and rich takes longer than all else here
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Speculative decoding on your machine: mlx_lm.server workers behind one OpenAI-compatible address."""
    if context.invoked_subcommand is None:
        from draftd.commands import overview

        overview.overview()
