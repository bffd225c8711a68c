"""What the verbs of the command line share: the terminal, common options, and the way to the running daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.ops.client import Client
from daemon.settings import load_settings

out = Console()
err = Console(stderr=True)

StateDir = Annotated[Path | None, typer.Option(help="Folder of the lock, the address and the logs.")]
Profiles = Annotated[Path | None, typer.Option(help="Folder of profile files (*.toml).")]
Name = Annotated[
    str, typer.Argument(metavar="PROFILE", help="Name, alias or any unambiguous part of a name.")
]


def make_client(state_dir: Path | None) -> Client:
    """A client of the running daemon. Raises NotRunningError."""
    settings = load_settings(state_dir=state_dir)
    return Client(settings.state_dir, settings.api_key.get_secret_value() if settings.api_key else "")


def resolve(client: Client, word: str | None) -> str:
    """A worker's name from any unambiguous part of it; the default model for none."""
    body = client.status()
    names = [row["name"] for row in body["workers"]]
    if word is None:
        return str(body["default_model"] or names[0])
    candidates = [name for name in names if word in name]
    if word in names or len(candidates) != 1:
        return word  # exact, an alias, or for the daemon to refuse
    return str(candidates[0])


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show that something takes a while."""
    with err.status(text):
        yield
