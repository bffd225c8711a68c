"""The command line. Exit codes: 0 success, 1 refused or failed, 2 wrong input or settings, 3 no daemon is running.

What ends with 2 ends the same way when it is tried again, until a person has changed something. launchd would try
it every 10 s for ever, and knows one way to be told not to: its agent ends with 0.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from draftd import __version__
from draftd.commands import bench, control, doctor, launchd, observe, opencode, overview, serve, setup, test
from draftd.console import err, out, take_every_text
from draftd.errors import ConfigError, DraftdError, NotRunningError
from draftd.instance import is_agent

EXIT_FAILED, EXIT_INPUT, EXIT_NOT_RUNNING = 1, 2, 3

app = typer.Typer(
    help="Speculative decoding on your machine: mlx_lm.server workers behind one OpenAI address.",
    epilog="Example: draftd up fast. Without a model of your own: draftd up --demo",
    pretty_exceptions_enable=False,
)
RUN, MEASURE, SET_UP, CONNECT = "Run", "Measure and check", "Set up", "Connect"
app.command(rich_help_panel=RUN)(serve.up)
app.command(rich_help_panel=RUN)(control.status)
app.command(rich_help_panel=RUN)(control.logs)
app.command(rich_help_panel=RUN)(control.restart)
app.command(rich_help_panel=RUN)(control.start)
app.command(rich_help_panel=RUN)(control.stop)
app.command(name="reload", rich_help_panel=RUN)(control.reload_profiles)
app.command(rich_help_panel=RUN)(control.down)
app.command(name="test", rich_help_panel=MEASURE)(test.smoke_test)
app.command(name="bench", rich_help_panel=MEASURE)(bench.run_bench)
app.command(rich_help_panel=MEASURE)(doctor.doctor)
app.command(rich_help_panel=MEASURE)(control.check)
app.command(rich_help_panel=SET_UP)(setup.init)
app.command(rich_help_panel=SET_UP)(setup.pull)
app.command(rich_help_panel=SET_UP)(setup.prompts)
app.add_typer(launchd.app, name="launchd", rich_help_panel=SET_UP)
app.command(rich_help_panel=CONNECT)(opencode.opencode)
app.command(rich_help_panel=CONNECT)(opencode.clients)
app.command(rich_help_panel=CONNECT)(observe.prometheus)
app.command(rich_help_panel=CONNECT)(observe.grafana)


def main() -> None:
    """Entry point: what a person can do something about is shown without a traceback."""
    take_every_text()
    try:
        app(prog_name="draftd")
    except BrokenPipeError:  # as in `draftd logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (DraftdError, OSError) as error:
        sys.exit(_told(error))


def _told(error: DraftdError | OSError) -> int:
    """Say what went wrong; the exit code."""
    err.say(f"draftd: {error}", style="red")
    codes = {ConfigError: EXIT_INPUT, NotRunningError: EXIT_NOT_RUNNING}
    code = codes.get(type(error), EXIT_FAILED)
    if code == EXIT_INPUT and is_agent():
        err.say("launchd does not try again before the next login; 'draftd launchd install' does")
        return 0
    return code


def _version(wanted: bool) -> None:
    if wanted:
        out.say(f"draftd {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Speculative decoding on your machine: mlx_lm.server workers behind one OpenAI address."""
    if context.invoked_subcommand is None:
        overview.overview()
