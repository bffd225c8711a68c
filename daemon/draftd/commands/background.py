"""What `draftd launchd` and `draftd service` share."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from draftd.console import out
from draftd.errors import DraftdError

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the commands, and run none.")]


def show_log(command: Sequence[str]) -> None:
    """Print what the command prints, until it ends or Ctrl-C comes."""
    with (
        suppress(KeyboardInterrupt),
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="surrogateescape") as reader,
    ):
        for line in reader.stdout or ():
            out.piece(line)


def started_by_hand(pid: int) -> DraftdError:
    """The error for a daemon that runs already, and would keep the service from starting, again and again."""
    return DraftdError(f"draftd is already running, started by hand (pid {pid}); 'draftd down' stops it")
