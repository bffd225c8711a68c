"""`draftd cache …`: the prompts that workers have read and stored, so that no other has to read them again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from draftd.commands.shared import StateDir, where_it_runs
from draftd.console import out
from draftd.files import check_private_folder, open_file
from draftd.protocol import (
    BEGINNINGS_FILE,
    PROMPT_CACHE_FOLDER,
    PROMPT_CACHE_SUFFIX,
    read_prompt_cache_header,
)
from draftd.settings import Settings, load_settings
from draftd.status_table import memory

app = typer.Typer(
    help="Show or remove the prompts that workers have stored on the disk.",
    epilog="Example: draftd cache list",
    no_args_is_help=True,
    add_completion=False,
)


@dataclass(frozen=True, slots=True)
class StoredPrompt:
    """A file, and what its header says; the header is empty if the file is not ours."""

    path: Path
    size: int
    used: float
    header: dict[str, Any]


@app.command("list")
def list_(state_dir: StateDir = None) -> None:
    """List the stored prompts, the most recently used first.

    Example: draftd cache list
    """
    settings = load_settings(state_dir=state_dir)
    found = sorted(_stored(settings), key=lambda one: one.used, reverse=True)
    if found:
        table = Table(box=None, pad_edge=False)
        for title in ("tokens", "size", "last used"):
            table.add_column(title, no_wrap=True)
        for title in ("model", "draft model"):
            table.add_column(title, overflow="fold")
        for one in found:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.used))
            models = (str(one.header.get(key) or "") for key in ("model", "draft_model"))
            table.add_row(str(one.header.get("tokens", "?")), memory(one.size), used, *models)
        out.show(table)
    limit = f"the limit is {memory(settings.cache_disk)}" if settings.cache_disk else "storing is turned off"
    out.say(f"{_counted(found)} in {_folder(settings)}; {limit}")


@app.command()
def clear(state_dir: StateDir = None) -> None:
    """Remove all stored prompts, and what requests began with lately. Running workers go on, and store new ones.

    Example: draftd cache clear
    """
    settings = load_settings(state_dir=state_dir)
    found = list(_stored(settings))
    for one in found:
        one.path.unlink(missing_ok=True)
    (_folder(settings) / BEGINNINGS_FILE).unlink(missing_ok=True)
    out.say(f"removed: {_counted(found)}")


def _folder(settings: Settings) -> Path:
    state_dir = where_it_runs(settings)
    with suppress(FileNotFoundError):  # there is none yet
        check_private_folder(state_dir)
    return state_dir / PROMPT_CACHE_FOLDER


def _stored(settings: Settings) -> Iterator[StoredPrompt]:
    for path in _folder(settings).glob(f"*{PROMPT_CACHE_SUFFIX}"):
        try:
            status = path.lstat()
            with os.fdopen(open_file(path, os.O_RDONLY, links=False), "rb") as file:
                header = read_prompt_cache_header(file)
        except FileNotFoundError:  # a worker has made room
            continue
        except (OSError, ValueError, RecursionError):
            header = {}
        yield StoredPrompt(path, status.st_size, status.st_mtime, header)


def _counted(found: list[StoredPrompt]) -> str:
    number = len(found)
    return f"{number} stored prompt{'' if number == 1 else 's'}, {memory(sum(one.size for one in found))}"
