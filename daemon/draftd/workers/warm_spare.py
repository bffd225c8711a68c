"""Starts the workers' children, from a warm spare if there is one that fits: an engine that has imported all that
it needs, and waits for its flags.

Rules for its use:

1.  There is one at most. It is made after an engine has been started, when no worker loads or waits to load, and
    none does QUIET seconds later either: requests that waited for the worker come first.
2.  A start takes it only if it starts an engine, if the spare has finished importing, and if the environment is the
    same: libraries read variables (HF_HUB_OFFLINE, for one) while they are imported. The folder that the spare was
    started in must still be there, too: see process.py.
3.  A start that does not take the spare ends it if it is still importing, as that would slow the start down, or if
    the start is an engine's: then a spare in another environment is what will be wanted.
4.  A start never fails because of the spare: whatever is wrong with it, the child is then started cold.

Theory of operation. `Starter.run` is a task that makes spares, one after the other, and looks after each until it
has ended or is taken. `Starter.start` is called by the workers' tasks; it takes the spare or has it killed, and
clears `_spare` before it awaits anything, so that two starts never take the same. The other side of the spare's
socket is daemon/draftd/engine/spare.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto

import structlog

from draftd import clock
from draftd.protocol import SPARE_TAKEN, SPARE_WARM
from draftd.workers import command, memory
from draftd.workers.channel import OnRecord
from draftd.workers.process import Child, contained, working_folder
from draftd.workers.resources import LoadGate
from draftd.workers.status import SpareStatus

log = structlog.get_logger("spare")

QUIET = 2.0  # seconds without any load before a spare is made
TAKE_LIMIT = 1.0  # seconds in which a spare has to answer; if it does not, the start is a cold one
MAX_OUTPUT = 64 * 1024  # bytes kept of what a spare says before somebody takes it
LAST_WORDS = 500  # bytes of what a spare said that are logged when it dies

Environment = Callable[[], Mapping[str, str]]
OnOutput = Callable[[bytes], None]
OnExit = Callable[[], None]
MAX_RECORDS = 16  # of a spare's records, kept until somebody takes it; it sends one


class Decision(Enum):
    """What a start does with the spare."""

    TAKE = auto()
    KEEP = auto()
    END = auto()


def decide(argv: Sequence[str], *, same: bool, warm: bool) -> Decision:
    """What to do with a spare (rules 2 and 3); `same`: its environment and folder are those a child gets now."""
    if flags_of(argv) is None:
        return Decision.KEEP if warm else Decision.END
    return Decision.TAKE if warm and same else Decision.END


def flags_of(argv: Sequence[str]) -> list[str] | None:
    """The flags, if this is the engine's command line."""
    first = len(command.ENGINE)
    return list(argv[first:]) if list(argv[:first]) == command.ENGINE else None


def _surroundings(env: Mapping[str, str]) -> object:
    try:
        folder = os.stat(working_folder())
    except OSError:  # the folder was removed at this very moment
        return env, None
    return env, (folder.st_dev, folder.st_ino)  # another one may have taken the same name


class SpareChild:
    """The process of one spare, and the socket over which it gets its flags. Await `over`, then `close` it."""

    _child: Child
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    def __init__(self, env: Mapping[str, str]) -> None:
        self._made_for = _surroundings(env)
        self.warm = False
        self.output = b""
        self._records: list[bytes] = []
        self.over = asyncio.Event()  # it has ended, or is somebody else's
        self._given = False

    @classmethod
    async def spawn(cls, env: Mapping[str, str]) -> SpareChild:
        """Start one for this environment. Raises OSError."""
        spare = cls(env)
        ours, theirs = socket.socketpair()
        with theirs:
            spare._reader, spare._writer = await asyncio.open_connection(sock=ours)
            try:
                spare._child = await Child.spawn(
                    command.SPARE,
                    env,
                    on_output=spare._keep,
                    on_record=spare._keep_record,
                    on_exit=spare.over.set,
                    stdin=theirs.fileno(),
                )
            except BaseException:
                spare._writer.close()
                raise
        return spare

    def is_made_for(self, env: Mapping[str, str]) -> bool:
        """Whether it was started in this environment, and in the folder that a child would start in now."""
        return self._made_for == _surroundings(env)

    @property
    def pid(self) -> int:
        """Its process, and its group."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._child.exit_code

    def status(self) -> SpareStatus:
        """The spare now."""
        return SpareStatus(self.pid, self.warm, memory.footprint(self.pid, family=False))

    async def until_warm(self) -> None:
        """Return when it has imported everything, or has ended."""
        with suppress(OSError):
            self.warm = await self._reader.read(len(SPARE_WARM)) == SPARE_WARM

    async def give(
        self, flags: Sequence[str], on_output: OnOutput, on_record: OnRecord, on_exit: OnExit
    ) -> Child | None:
        """Let a warm spare go on with these flags: it is then the caller's. None if it does not answer in time.

        `on_output` and `on_record` get what it has said so far. Nothing is passed on from one that did not answer.
        """
        answer = b""
        with suppress(OSError, TimeoutError):
            async with clock.limit(TAKE_LIMIT):
                self._writer.write(json.dumps(list(flags)).encode() + b"\n")
                answer = await self._reader.read(len(SPARE_TAKEN))
        if answer != SPARE_TAKEN or self.exit_code is not None:
            return None
        self._given = True
        self._child.tell(on_output, on_record, on_exit)
        on_output(self.output)
        for line in self._records:
            on_record(line)
        self.over.set()
        return self._child

    def kill(self) -> None:
        """End it, without waiting for that; harmless for one that was given away."""
        if not self._given:
            self._child.kill_group()

    async def close(self) -> None:
        """End it if it is still ours, and close what belongs to it."""
        self.kill()
        await self.over.wait()
        self._writer.close()
        if not self._given:
            self._child.close()

    def _keep(self, chunk: bytes) -> None:
        self.output = (self.output + chunk)[-MAX_OUTPUT:]

    def _keep_record(self, line: bytes) -> None:
        self._records = [*self._records, line][-MAX_RECORDS:]


class Starter:
    """See the module's docstring. `loads` knows when no worker loads. Unless `run` runs, every start is cold."""

    def __init__(self, loads: LoadGate, on_change: Callable[[], None], quiet: float = QUIET) -> None:
        self._loads = loads
        self._on_change = on_change
        self._quiet = quiet
        self._environment: Environment = dict
        self._wanted = asyncio.Event()
        self._spare: SpareChild | None = None

    async def start(
        self,
        argv: Sequence[str],
        environment: Environment,
        *,
        on_output: OnOutput,
        on_record: OnRecord,
        on_exit: OnExit,
    ) -> Child:
        """Like Child.spawn, but from the spare if it fits. Only engines have records. Raises OSError.

        `environment` is asked now, and again for the next spare: by then the models may have been fetched.
        """
        env = environment()
        engine = flags_of(argv) is not None
        child = await self._from_spare(argv, env, on_output, on_record, on_exit)
        if child is None:
            child = await Child.spawn(
                argv,
                env,
                on_output=on_output,
                on_exit=on_exit,
                on_record=on_record if command.has_channel(argv) else None,
            )
        if engine:
            self._environment = environment
            self._wanted.set()
        return child

    async def _from_spare(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        on_output: OnOutput,
        on_record: OnRecord,
        on_exit: OnExit,
    ) -> Child | None:
        spare = self._spare
        if spare is None:
            return None
        decision = decide(argv, same=spare.is_made_for(env), warm=spare.warm)
        if decision is Decision.KEEP:
            return None
        self._spare = None
        self._wanted.set()
        child = None
        try:
            if decision is Decision.TAKE:
                child = await spare.give(flags_of(argv) or (), on_output, on_record, on_exit)
                outcome = "the warm spare is taken" if child else "the warm spare did not answer"
                log.info(outcome, pid=spare.pid)
        finally:
            spare.kill()
        return child

    def status(self) -> SpareStatus | None:
        """The spare now; None if there is none."""
        return self._spare.status() if self._spare else None

    async def run(self) -> None:
        """Keep a spare until cancelled; the spare has ended then."""
        while True:
            await self._wanted.wait()
            await self._until_quiet()
            self._wanted.clear()
            with contained(""):
                await self._keep_one()

    async def _keep_one(self) -> None:
        try:
            spare = await SpareChild.spawn(self._environment())
        except OSError as error:
            log.warning("the warm spare could not be started", reason=str(error))
            return
        try:
            await self._look_after(spare)
        finally:
            self._spare = None
            await spare.close()
            self._on_change()

    async def _until_quiet(self) -> None:
        while True:
            idle = asyncio.Event()
            self._loads.when_idle(idle.set)
            await idle.wait()
            await asyncio.sleep(self._quiet)
            if self._loads.idle:
                return

    async def _look_after(self, spare: SpareChild) -> None:
        """Return when it has ended or was taken."""
        if not self._loads.idle:  # a start came while it was spawned, and did not see it
            self._wanted.set()
            return
        self._spare = spare
        self._on_change()
        await spare.until_warm()
        if spare.warm:
            log.info("the warm spare waits", pid=spare.pid)
            self._on_change()
        await spare.over.wait()
        if self._spare is spare:
            words = spare.output[-LAST_WORDS:].decode(errors="replace")
            log.warning("the warm spare has died", code=spare.exit_code, said=words)
