"""A warm spare's process: what it was made for, what it says, and the socket over which it gets its flags.

The other side of the socket, and what is said there, is daemon/draftd/engine/spare.py.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from draftd.protocol import SPARE_TAKEN, SPARE_WARM
from draftd.workers import command, health
from draftd.workers.process import Child
from draftd.workers.spare import TAKE_LIMIT, SpareStatus

MOST_OUTPUT = 64 * 1024  # bytes kept of what it says before somebody takes it


class SpareChild:
    """One spare. Whoever spawned it awaits `over`, and then `close`s it."""

    _child: Child
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.warm = False
        self.output = b""
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
                    command.SPARE, env, on_output=spare._keep, on_exit=spare.over.set, stdin=theirs.fileno()
                )
            except BaseException:
                spare._writer.close()
                raise
        return spare

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
        return SpareStatus(self.pid, self.warm, health.memory_of(self.pid, family=False))

    async def until_warm(self) -> None:
        """Return when it has imported everything, or has ended."""
        with suppress(OSError):
            self.warm = await self._reader.read(len(SPARE_WARM)) == SPARE_WARM

    async def give(
        self, flags: Sequence[str], on_output: Callable[[bytes], None], on_exit: Callable[[], None]
    ) -> Child | None:
        """Let a warm one go on with these flags. It is the caller's then; None if it does not answer in time.

        What it has said so far is told to `on_output`. Of one that did not answer nothing will be heard.
        """
        answer = b""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(TAKE_LIMIT):
                self._writer.write(json.dumps(list(flags)).encode() + b"\n")
                answer = await self._reader.read(len(SPARE_TAKEN))
        if answer != SPARE_TAKEN or self.exit_code is not None:
            return None
        self._given = True
        self._child.tell(on_output, on_exit)
        on_output(self.output)
        self.over.set()
        return self._child

    def kill(self) -> None:
        """End it, without waiting for that; harmless for one that was given away."""
        if not self._given:
            self._child.kill_group()

    async def close(self) -> None:
        """End it if it is still ours, and let go of what belongs to it."""
        self.kill()
        await self.over.wait()
        self._writer.close()
        if not self._given:
            self._child.close()

    def _keep(self, chunk: bytes) -> None:
        self.output = (self.output + chunk)[-MOST_OUTPUT:]
