"""One daemon per state folder: the lock that a daemon holds, and the note that says where it answers.

The lock is the truth: the system lets go of it when the daemon ends, however it ends. The note may be stale,
and is believed only while the lock is held and the process it names is the one that wrote it.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from draftd.errors import AlreadyRunningError, ConfigError, NotRunningError

LOCK = "daemon.lock"
NOTE = "daemon.json"
AGENT = "dev.draftd"  # the label of the launchd agent
TRIES = 5


@dataclass(frozen=True, slots=True)
class Running:
    """A running daemon. `created` (see `_created`) distinguishes its process from a later one with the same pid;
    `agent` is the label of the launchd agent that it runs as, if it does.
    """

    pid: int
    created: float
    url: str
    version: str
    agent: str = ""


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
        if not _take(self._lock):
            self._lock.close()
            raise AlreadyRunningError(_who(self._dir))
        return self

    def announce(self, url: str, version: str) -> None:
        """Write where this daemon answers."""
        note = Running(os.getpid(), _created(os.getpid()), url, version, _agent())
        made = self._dir / f"{NOTE}.new"
        try:
            made.touch(mode=0o600)
            made.write_text(json.dumps(asdict(note)), "utf-8")
            made.replace(self._dir / NOTE)
        except OSError as error:
            raise ConfigError(f"the state folder {self._dir} cannot be used: {error.strerror}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            (self._dir / NOTE).unlink()
        if self._lock is not None:
            self._lock.close()


def find_daemon(state_dir: Path) -> Running:
    """The daemon that holds `state_dir`. Raises NotRunningError."""
    if not _is_held(state_dir):
        raise NotRunningError(f"no daemon is running (state folder {state_dir}); 'draftd up' starts one")
    note = _read(state_dir)
    if note is None or not _is_same_process(note):
        raise NotRunningError(f"a daemon holds {state_dir}, but does not answer yet; try again in a moment")
    return note


def _take(lock: IO[str]) -> bool:
    """`find_daemon` holds the lock shared for an instant: only a lock that stays held is a daemon's."""
    for _ in range(TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.02)
    return False


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
        note = Running(**json.loads((state_dir / NOTE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return note if isinstance(note.pid, int) else None  # psutil takes None for the process that asks


def _is_same_process(note: Running) -> bool:
    try:
        return abs(_created(note.pid) - note.created) < 2  # the boot time is reported in whole seconds
    except (psutil.Error, TypeError, ValueError):  # gone, or a note of somebody else's making
        return False


def _created(pid: int) -> float:
    """When the process was created, in seconds of a clock that setting the wall clock does not move.

    On Linux psutil adds the boot time to it, which does move; it is taken off again.
    """
    boot = psutil.boot_time() if sys.platform == "linux" else 0.0
    return psutil.Process(pid).create_time() - boot


def _agent() -> str:
    """launchd puts its job's name into the environment, where a terminal may put its own."""
    return AGENT if os.environ.get("XPC_SERVICE_NAME") == AGENT else ""


def _who(state_dir: Path) -> str:
    note = _read(state_dir)
    if note is None or not _is_same_process(note):  # none yet, or that of an earlier daemon
        return f"another draftd is starting in {state_dir}; try again in a moment"
    return f"draftd {note.version} runs already: pid {note.pid}, {note.url}; {how_to_stop(note)}"


def how_to_stop(note: Running) -> str:
    """Who started the daemon, as far as is known, and what stops it."""
    if note.agent:
        return "launchd started it; 'draftd down' stops it for now, 'draftd launchd uninstall' for good"
    return "'draftd down' stops it"
