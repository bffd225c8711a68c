"""One daemon per state folder: the lock that a daemon holds, and the note that says where it answers.

The lock is the truth: the system lets go of it when the daemon ends, however it ends. The note may be stale,
and is believed only while the lock is held and the process it names is the one that wrote it.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from daemon.errors import AlreadyRunningError, ConfigError, NotRunningError

LOCK = "daemon.lock"
NOTE = "daemon.json"


@dataclass(frozen=True, slots=True)
class Running:
    """A running daemon. `created` is its process's creation time (epoch seconds), which tells it from a later
    process with the same pid.
    """

    pid: int
    created: float
    url: str
    version: str


class Instance:
    """Holds the state folder for as long as the block runs. Raises AlreadyRunningError, ConfigError."""

    def __init__(self, state_dir: Path) -> None:
        self._dir = state_dir
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (self._dir / LOCK).open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"the state folder {self._dir} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise AlreadyRunningError(_who(self._dir)) from None
        return self

    def announce(self, url: str, version: str) -> None:
        """Write where this daemon answers."""
        own = psutil.Process()
        note = Running(own.pid, own.create_time(), url, version)
        made = self._dir / f"{NOTE}.new"
        made.write_text(json.dumps(asdict(note)), "utf-8")
        made.replace(self._dir / NOTE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self._dir / NOTE).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()


def find(state_dir: Path) -> Running:
    """The daemon that holds `state_dir`. Raises NotRunningError."""
    if not _is_held(state_dir):
        raise NotRunningError(f"no daemon runs (state folder {state_dir}); 'draftd up' starts one")
    note = _read(state_dir)
    if note is None or not _is_same_process(note):
        raise NotRunningError(f"a daemon holds {state_dir}, but does not answer yet; try again in a moment")
    return note


def _is_held(state_dir: Path) -> bool:
    try:
        with (state_dir / LOCK).open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _read(state_dir: Path) -> Running | None:
    try:
        return Running(**json.loads((state_dir / NOTE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_same_process(note: Running) -> bool:
    try:
        return abs(psutil.Process(note.pid).create_time() - note.created) < 1
    except psutil.Error:
        return False


def _who(state_dir: Path) -> str:
    note = _read(state_dir)
    if note is None:
        return f"another draftd is starting in {state_dir} (this is {os.getpid()}); 'draftd down' stops it"
    return f"draftd {note.version} runs already: pid {note.pid}, {note.url}; 'draftd down' stops it"
