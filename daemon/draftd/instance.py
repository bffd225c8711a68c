"""One daemon per state folder: the lock that a daemon holds, and the note that says where it answers.

The lock is the truth: the system releases it when the daemon ends, however it ends. The note may be stale, and is
believed only while the lock is held and the process it names is the one that wrote it. Both may be swept away with
the folder while a daemon runs (cleaners of temporary files do that), so it looks again now and then.

Whoever can write in the folder could name a process to be stopped, an address to send the key to, or (by a link) a
file to be written. So the folder is ours alone, or refused, and no link in it is followed.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from draftd.errors import AlreadyRunningError, ConfigError, DraftdError, NotRunningError
from draftd.files import (
    check_private_folder,
    make_private,
    make_private_folder,
    open_file,
    read_text,
    write_private,
)
from draftd.sudden_end import WORDS
from draftd.tls import Certificate

LOCK = "daemon.lock"
NOTE = "daemon.json"
LOGS = "logs"
OURS = ("daemon.*", "bench.json", f"{LOGS}/*.log*")  # the files in the folder
AGENT = "dev.draftd"  # the label of the launchd agent, unless DRAFTD_AGENT_LABEL gives another
TRIES = 5
LOOK_AGAIN = 1.0  # seconds between looks at the folder


@dataclass(frozen=True, slots=True)
class Running:
    """A running daemon. `created` (see `_created`) distinguishes its process from a later one with the same pid;
    `agent` is the label of the launchd agent that it runs as, if it does. Draftd's own commands reach it at `url`,
    where they trust `certificate` (PEM); other clients at `address`, and they have to trust what is in the file
    `to_trust`. Both are empty if it serves plain http.
    """

    pid: int
    created: float
    url: str
    version: str
    agent: str = ""
    client_url: str = ""
    certificate: str = ""
    to_trust: str = ""

    @property
    def address(self) -> str:
        """Where clients reach it: under a name that its certificate is for."""
        return self.client_url or self.url


class Instance:
    """Holds the state folder for as long as the block runs. Raises AlreadyRunningError, ConfigError."""

    def __init__(self, state_dir: Path) -> None:
        self._dir = state_dir
        self._lock: IO[str] | None = None
        self._note: Running | None = None

    def __enter__(self) -> Self:
        self._lock = self._taken()
        return self

    def earlier(self) -> Running | None:
        """The daemon that held the folder before and could not stop in order; None if none is known."""
        return _read(self._dir) if self._note is None else None

    def announce(
        self, url: str, version: str, client_url: str = "", certificate: Certificate | None = None
    ) -> None:
        """Write where this daemon answers, and with which certificate."""
        self._note = Running(
            pid=os.getpid(),
            created=_created(os.getpid()),
            url=url,
            version=version,
            agent=agent_label() if is_agent() else "",
            client_url=client_url,
            certificate=certificate.pem if certificate else "",
            to_trust=certificate.to_trust if certificate else "",
        )
        self._write(self._note)

    async def keep(self) -> None:
        """Take the folder again whenever it is swept: else this daemon is not found, and another can start."""
        import asyncio  # here, as a command that looks for the daemon needs neither

        import structlog

        log = structlog.get_logger("instance")
        reason = ""
        while True:
            await asyncio.sleep(LOOK_AGAIN)
            try:
                if await asyncio.to_thread(self.restore):
                    log.warning("the state folder had been swept, and is taken again")
                reason = ""
            except DraftdError as error:
                if str(error) != reason:  # once, not every second
                    log.warning(
                        "the state folder has been swept, and cannot be taken again", reason=str(error)
                    )
                reason = str(error)

    def restore(self) -> bool:
        """Take the folder again if it was swept, and write the note again; returns whether that was necessary.

        Raises AlreadyRunningError if another daemon was quicker, and ConfigError.
        """
        lost_lock = not self._has_lock()
        if lost_lock:
            self._make_usable()
            lost_lock = not self._has_lock()  # it is still there if the folder was only closed to us
        # Not by Path's own, which raises where the folder may not be looked into.
        lost_note = self._note and not os.path.exists(self._dir / NOTE)
        if lost_lock:
            lock = self._taken()
            if self._lock is not None:
                self._lock.close()
            self._lock = lock
        if self._note and (lost_lock or lost_note):
            self._write(self._note)
        return bool(lost_lock or lost_note)

    def _taken(self) -> IO[str]:
        self._make_usable()
        try:
            descriptor = open_file(self._dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_APPEND, links=False)
        except OSError as error:
            raise self._unusable(error) from error
        lock = os.fdopen(descriptor, "a", encoding="utf-8")
        if not _take(lock):
            lock.close()
            raise AlreadyRunningError(_who(self._dir))
        return lock

    def _make_usable(self) -> None:
        try:
            self._make_private()
        except OSError as error:
            raise self._unusable(error) from error

    def _make_private(self) -> None:
        """Make the folder, the logs in it and all files private. Raises ConfigError if others can write there, and
        OSError.
        """
        make_private_folder(self._dir)
        logs = self._dir / LOGS
        if logs.is_symlink():
            raise ConfigError(
                f"{logs} is a symbolic link; move it away, or choose another folder with --state-dir"
            )
        if logs.exists():
            make_private_folder(logs)
        for pattern in OURS:
            for path in self._dir.glob(pattern):
                with suppress(FileNotFoundError):
                    make_private(path)

    def _unusable(self, error: OSError) -> ConfigError:
        where = f" ({Path(error.filename).name})" if error.filename not in {None, str(self._dir)} else ""
        return ConfigError(f"the state folder {self._dir} cannot be used: {error.strerror}{where}")

    def _has_lock(self) -> bool:
        """Whether the lock that we hold is the one that others look at."""
        try:
            return self._lock is not None and os.path.samestat(
                os.fstat(self._lock.fileno()), (self._dir / LOCK).lstat()
            )
        except OSError:
            return False

    def _write(self, note: Running) -> None:
        try:
            write_private(self._dir / NOTE, json.dumps(asdict(note)))
        except OSError as error:
            raise self._unusable(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is None:
            return
        with suppress(OSError):
            # Else the folder is another daemon's, and so is the note; or it is that of one which could not stop.
            if self._note and self._has_lock():
                (self._dir / NOTE).unlink()
        self._lock.close()


def find_daemon(state_dir: Path) -> Running:
    """The daemon that holds `state_dir`. Raises NotRunningError, and ConfigError if others can write there."""
    with suppress(OSError):
        check_private_folder(state_dir)
    if not _is_held(state_dir):
        last = _read(state_dir)  # one that stops in order takes its note away
        how = f"; the last one, pid {last.pid}, could not stop in order: {WORDS}" if last else ""
        raise NotRunningError(f"no daemon is running (state folder {state_dir}){how}; 'draftd up' starts one")
    note = _read(state_dir)
    if note is None or not _is_same_process(note):
        raise NotRunningError(f"a daemon holds {state_dir}, but does not answer yet; try again in a moment")
    return note


def wait_until_free(
    state_dir: Path, tell: Callable[[str], object], *, sleep: Callable[[float], object] = time.sleep
) -> None:
    """Return when no daemon holds the folder: launchd would start one that is refused again and again."""
    told = ""
    while _is_held(state_dir):
        if (who := _who(state_dir)) != told:
            tell(f"{who}. This one waits until it has ended")
        told = who
        sleep(LOOK_AGAIN)


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
        with os.fdopen(open_file(state_dir / LOCK, os.O_RDONLY, links=False)) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _read(state_dir: Path) -> Running | None:
    try:
        note = Running(**json.loads(read_text(state_dir / NOTE, links=False)))
    except (OSError, ValueError, TypeError):
        return None
    return note if isinstance(note.pid, int) else None  # psutil takes None for the process that asks


def _is_same_process(note: Running) -> bool:
    try:
        return abs(_created(note.pid) - note.created) < 2  # the boot time is reported in whole seconds
    except (psutil.Error, TypeError, ValueError):  # gone, or the note is not ours
        return False


def _created(pid: int) -> float:
    """When the process was created, in seconds by a clock that setting the wall clock does not move.

    On Linux psutil adds the boot time, which does move; it is subtracted again.
    """
    boot = psutil.boot_time() if sys.platform == "linux" else 0.0
    return psutil.Process(pid).create_time() - boot


def agent_label() -> str:
    """The name by which launchd knows our agent. Another one lets a second agent live beside the user's own."""
    return os.environ.get("DRAFTD_AGENT_LABEL") or AGENT


def is_agent() -> bool:
    """Whether launchd started this process: then the environment has our label, where a terminal has its own."""
    return os.environ.get("XPC_SERVICE_NAME") == agent_label()


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
