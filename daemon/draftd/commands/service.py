"""`draftd service …`: the daemon as a systemd user service, started at login and again after a failure."""

from __future__ import annotations

import getpass
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import typer

from draftd.commands.background import DryRun, show_log, started_by_hand
from draftd.commands.shared import Follow, NewestLines, ProfileArguments
from draftd.console import out
from draftd.errors import DraftdError, NotRunningError
from draftd.instance import find_daemon
from draftd.ops import background, systemd
from draftd.profile_files import load_for
from draftd.profiles import select
from draftd.settings import Settings, load_settings

app = typer.Typer(
    help="Run the daemon as a systemd user service, on Linux.",
    epilog="Example: draftd service install balanced",
    no_args_is_help=True,
    add_completion=False,
)
LINGER = Path("/var/lib/systemd/linger")  # has a file for each user whose services run without a login


@app.command("print")
def print_(names: ProfileArguments = None) -> None:
    """Print the unit, filled in.

    Example: draftd service print balanced
    """
    out.data(_unit(load_settings(), names, os.environ).text(), end="")


@app.command()
def install(names: ProfileArguments = None, dry_run: DryRun = False) -> None:
    """Install the service and start it, now and at each login; one that is running is stopped first.

    Example: draftd service install balanced
    """
    settings = load_settings()
    select(load_for(settings), names or [])  # or it would fail at each start
    unit, file = _unit(settings, names, os.environ), systemd.unit_file()
    text = unit.text()
    if dry_run:
        out.data(shlex.join(["mkdir", "-p", str(file.parent)]))
        out.data(f"{shlex.join(['draftd', 'service', 'print', *unit.words])} > {shlex.quote(str(file))}")
        for command in systemd.commands():
            out.data(shlex.join(command))
        return
    _only_with_systemd()
    _no_other(settings)
    systemd.install(file, text)
    out.say(f"{file} is installed and runs")
    if not (LINGER / getpass.getuser()).exists():
        out.say(
            "it runs while you are logged in; 'loginctl enable-linger' keeps it running after that",
            style="yellow",
        )
    out.say("'draftd status' shows the workers, 'draftd service logs -f' the log")


@app.command()
def uninstall(dry_run: DryRun = False) -> None:
    """Stop the service and remove it.

    Example: draftd service uninstall --dry-run
    """
    file = systemd.unit_file()
    if dry_run:
        for command in systemd.commands_of_removal(file):
            out.data(shlex.join(command))
        return
    _only_with_systemd()
    out.say("the service is gone" if systemd.uninstall(file) else "there was no service")


@app.command()
def status() -> None:
    """Show what systemd knows about the service.

    Example: draftd service status
    """
    _only_with_systemd()
    for key, value in systemd.status().items():
        out.say(f"{key}: {value}")


@app.command()
def logs(
    follow: Follow = False,
    lines: NewestLines = 100,
) -> None:
    """Show the service's log, from the journal.

    Example: draftd service logs -f
    """
    _only_with_systemd()
    command = ["journalctl", "--user", "--unit", systemd.UNIT, "--no-pager", "--output", "cat"]
    command += ["--lines", str(lines), *(["--follow"] if follow else [])]
    show_log(command)


def _unit(settings: Settings, names: list[str] | None, environ: Mapping[str, str]) -> systemd.Unit:
    return systemd.Unit(
        program=background.program(Path(sys.executable)),
        words=tuple(names or ()),
        longest_stop=settings.drain_timeout + settings.stop_grace,
        environment=background.environment(environ) | {"DRAFTD_STATE_DIR": str(settings.state_dir)},
    )


def _only_with_systemd() -> None:
    if not shutil.which("systemctl"):
        system = platform.system()
        other = (
            "'draftd launchd install' does the same"
            if system == "Darwin"
            else "run 'draftd up --plain' under its own service manager"
        )
        raise DraftdError(
            f"there is no systemd on this {system}: {other}; 'draftd service print' works everywhere"
        )


def _no_other(settings: Settings) -> None:
    """Raises DraftdError if a daemon runs that is not the service's."""
    try:
        running = find_daemon(settings.state_dir)
    except NotRunningError:
        return
    with suppress(NotRunningError):
        if systemd.status().get("pid") == str(running.pid):
            return
    raise started_by_hand(running.pid)
