"""One child process: starts it, hears its output and its exit, and ends its whole group.

Theory of operation. The child leads a session of its own, so that one signal reaches all of its descendants.
Its stdout and stderr are one pipe, read by the event loop in whatever chunks come: there is no line reader to
overrun. After MAX_WORK seconds of work on it the pipe is not read for a while: a child that floods its output slows
itself down, not others. The more children do so at a time, the longer each pipe is not read.

A second pipe is the lifeline: the child holds the read end, we hold the write end and never write; when we are
gone, for whatever reason, it reads end-of-file. An engine has a channel as well: see channel.py.

Exit is not end-of-file: a grandchild may keep the output pipe open. The child watcher reports the exit, and what is
still in the pipe is given EOF_GRACE seconds to arrive, so that the last words and the last records are there when
the exit is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import ClassVar, cast

import psutil
import structlog

from draftd import clock
from draftd.protocol import CHANNEL_VARIABLE, LIFELINE_VARIABLE, MemoryShare
from draftd.workers.channel import Channel, OnRecord

log = structlog.get_logger("worker")

EOF_GRACE = 0.05  # seconds; the exit must be known within 0.1
PIECE = 8192  # bytes that are handed on at a time; as lines of one letter they take about 5 ms
MAX_WORK = 0.005
FLOODS_SHARE = 0.5  # of the loop's time: more is not spent on all floods together


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return os.sep  # it has been removed


STARTED_IN = _current_folder()


def working_folder() -> str:
    """Where a child may start: in the folder where the daemon was started, if that exists or exists again; else in
    the user's home, else in the root. Without a folder that exists Python does not even start.
    """
    wanted = (STARTED_IN, os.path.expanduser("~"))
    return next((folder for folder in wanted if os.access(folder, os.X_OK) and os.path.isdir(folder)), os.sep)


@contextmanager
def contained(worker: str) -> Iterator[None]:
    """Log an exception that nobody foresaw; it ends nothing but what it interrupted."""
    try:
        yield
    except Exception:
        tell_fault(worker)


def tell_fault(worker: str) -> None:
    """Log the exception that is being handled as a fault of ours."""
    log.exception("a fault in draftd itself; it goes on", worker=worker)


class Child:
    """A running (or ended) child. `exit_code` is None while it runs; negative for a signal."""

    def __init__(self, on_output: Callable[[bytes], None], on_exit: Callable[[], None]) -> None:
        self._on_output = on_output
        self._on_exit = on_exit
        self._transport: asyncio.SubprocessTransport | None = None
        self._lifeline: int | None = None
        self._channel: Channel | None = None
        self.pid = 0
        self.exit_code: int | None = None

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        on_output: Callable[[bytes], None],
        on_exit: Callable[[], None],
        on_record: OnRecord | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> Child:
        """Start `argv` in `working_folder`. `on_exit` is called once, after the last output. Raises OSError.

        An engine gets a channel, and `on_record` what it says over it; other commands get none.
        """
        child = cls(on_output, on_exit)
        with ExitStack() as undo, ExitStack() as spawned:
            theirs, child._lifeline = os.pipe()
            undo.callback(child.close)
            spawned.callback(os.close, theirs)
            passed = {LIFELINE_VARIABLE: theirs}
            if on_record is not None:
                child._channel = Channel(on_record)
                passed[CHANNEL_VARIABLE] = child._channel.theirs.fileno()
            child._transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: _Protocol(child),
                *argv,
                env={**env, **{name: str(fd) for name, fd in passed.items()}},
                cwd=working_folder(),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=tuple(passed.values()),
            )
            undo.pop_all()
        if child._channel is not None:
            child._channel.open()
        child.pid = child._transport.get_pid()
        return child

    @property
    def secret(self) -> str:
        """What its engine wants to see with each request; empty for other commands."""
        return self._channel.secret if self._channel is not None else ""

    def tell(
        self, on_output: Callable[[bytes], None], on_record: OnRecord, on_exit: Callable[[], None]
    ) -> None:
        """Hand output, records and the exit to others from now on."""
        self._on_output = on_output
        self._on_exit = on_exit
        if self._channel is not None:
            self._channel.on_record = on_record

    def limit_memory(self, share: MemoryShare) -> None:
        """Tell an engine what it may take; other commands are told nothing."""
        if self._channel is not None:
            self._channel.send(share.line())

    def terminate(self) -> None:
        """SIGTERM to the group, and SIGCONT, without which a stopped process would not hear it."""
        self._signal_group(signal.SIGTERM)
        self._signal_group(signal.SIGCONT)

    def kill_group(self) -> None:
        """SIGKILL to whatever is left of the group, if anything is."""
        self._signal_group(signal.SIGKILL)

    def close(self) -> None:
        """Close our ends of an ended child's pipes. Idempotent."""
        if self._transport is not None:
            self._transport.close()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        if self._channel is not None:
            self._channel.close()

    def _signal_group(self, number: signal.Signals) -> None:
        # The group's number is the child's pid, which is given to nobody else while a member of the group lives.
        # 0 would be our own group.
        if self.pid > 0 and not self._is_anothers():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _is_anothers(self) -> bool:
        """Whether the number has been given to a stranger. Once our child has been waited for, a process of that
        number is one, and then nothing of our group is left.
        """
        if self._transport is None or self._transport.get_returncode() is None:
            return False
        return psutil.pid_exists(self.pid)


class _Protocol(asyncio.SubprocessProtocol):
    """Hands output on, with rests, and the exit when the output has ended or EOF_GRACE has passed."""

    _at_rest: ClassVar[set[_Protocol]] = set()

    def __init__(self, child: Child) -> None:
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._held = bytearray()  # read, and not handed on yet
        self._worked = 0.0  # seconds since the last rest
        self._resting = False  # the pipe is not read meanwhile
        self._exited = False
        self._eof = False
        self._told = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._held += data
        if self._exited:
            self._hand_on(len(self._held))
        elif not self._resting:
            self._work()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._eof = True
        if self._exited:
            self._tell()

    def process_exited(self) -> None:
        assert self._transport is not None
        self._exited = True
        self._child.exit_code = self._transport.get_returncode()
        # No more rests: there is no more than what the pipe can hold, and it belongs with the exit.
        self._hand_on(len(self._held))
        self._end_rest()
        if self._eof:
            self._tell()
        else:
            clock.Timer(EOF_GRACE, self._tell)

    def _work(self) -> None:
        while self._held and self._worked < MAX_WORK:
            began = time.monotonic()
            self._hand_on(PIECE)
            self._worked += time.monotonic() - began
        if self._worked >= MAX_WORK:
            self._set_reading(False)
            self._resting = True
            self._at_rest.add(self)
            share = FLOODS_SHARE / len(self._at_rest)
            self._loop.call_later(self._worked / share - self._worked, self._end_rest)

    def _end_rest(self) -> None:
        if not self._resting:
            return
        self._resting = False
        self._at_rest.discard(self)
        self._worked = 0.0
        self._work()
        if not self._resting:
            self._set_reading(True)

    def _set_reading(self, wanted: bool) -> None:
        assert self._transport is not None
        pipe = cast(asyncio.ReadTransport, self._transport.get_pipe_transport(1))
        if not self._eof and not pipe.is_closing():
            (pipe.resume_reading if wanted else pipe.pause_reading)()

    def _hand_on(self, count: int) -> None:
        if self._held:
            piece = bytes(self._held[:count])
            del self._held[:count]
            self._child._on_output(piece)

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            if self._child._channel is not None:
                self._child._channel.read_all()
            self._child._on_exit()
