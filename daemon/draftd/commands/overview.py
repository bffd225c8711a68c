"""`draftd` without a verb: how things stand, and what to type next."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from rich.table import Table

from draftd import __version__
from draftd.commands.shared import make_client
from draftd.console import out
from draftd.errors import NotRunningError
from draftd.instance import how_to_stop
from draftd.status_table import status_view

RUNNING = {
    "draftd test": "one answer, and how fast it came",
    "draftd opencode --write": "let OpenCode use these models ('draftd clients': other programs)",
    "draftd logs -f": "each request as it ends, and what the workers write",
}
STOPPED = {
    "draftd up --demo": "serve the built-in models: nothing to download",
    "draftd up balanced": "serve the default preset; the first start downloads it",
    "draftd doctor": "look for what could be in the way",
}


def version() -> None:
    """Show the versions of draftd and of what it is built on.

    Example: draftd version
    """
    out.say(f"draftd {__version__}")
    for package in ("mlx-lm", "mlx"):
        out.say(f"{package} {_version_of(package)}")
    out.say(
        f"Python {platform.python_version()} on {platform.system()} {platform.release()}, {platform.machine()}"
    )


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "is not installed"


def overview(state_dir: Path | None = None) -> None:
    """Show the daemon and its workers, or that none runs, and three commands."""
    try:
        client = make_client(state_dir)
        body = client.status()
    except NotRunningError as error:
        out.say(f"{error}\n")
        _next(STOPPED)
        return
    running = client.daemon
    out.say(
        f"draftd {body['version']} serves at {running.address}/v1, pid {body['pid']}; {how_to_stop(running)}"
    )
    out.show(status_view(body, out.room))
    _next(RUNNING)


def _next(commands: dict[str, str]) -> None:
    table = Table.grid(padding=(0, 3))
    for command, why in (commands | {"draftd --help": "every command"}).items():
        table.add_row(f"  {command}", why)
    out.show(table)
