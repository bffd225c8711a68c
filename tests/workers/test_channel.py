"""The daemon's end of the channel, with children that speak the engine's side."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from draftd.protocol import CHANNEL_VARIABLE
from draftd.workers.channel import MAX_RECORD
from draftd.workers.process import Child
from tests.workers.pretended import settle

ENGINE = f"""
import os
fd = int(os.environ["{CHANNEL_VARIABLE}"])
print(os.read(fd, 256).decode(), end="", flush=True)
"""
LIMIT = 10.0  # seconds


class Heard:
    """A child, with or without a channel, and what was heard from it."""

    def __init__(self) -> None:
        self.output = b""
        self.records: list[bytes] = []
        self.ended = asyncio.Event()
        self.at_the_end = 0  # records
        self.child: Child

    @asynccontextmanager
    async def to_the_end(
        self, code: str, *, channel: bool = True, deaf: bool = False
    ) -> AsyncIterator[Heard]:
        """Run `code`. With `deaf` the loop has no time for its reports before it ends."""
        self.child = await Child.spawn(
            [sys.executable, "-c", code],
            os.environ,
            on_output=self._take,
            on_exit=self._end,
            on_record=self.records.append if channel else None,
        )
        if deaf:
            assert self.child._channel is not None
            asyncio.get_running_loop().remove_reader(self.child._channel._ours.fileno())
        try:
            async with asyncio.timeout(LIMIT):
                await self.ended.wait()
            yield self
        finally:
            self.child.kill_group()
            self.child.close()

    def _take(self, chunk: bytes) -> None:
        self.output += chunk

    def _end(self) -> None:
        self.at_the_end = len(self.records)
        self.ended.set()


async def test_each_start_has_a_secret_of_its_own() -> None:
    async with Heard().to_the_end(ENGINE) as one, Heard().to_the_end(ENGINE) as other:
        assert one.output.decode() == f"{one.child.secret}\n"
        assert len(one.child.secret) >= 32
        assert one.child.secret != other.child.secret


async def test_a_command_of_others_gets_no_channel_and_no_secret() -> None:
    code = f"import os; print('{CHANNEL_VARIABLE}' in os.environ)"
    async with Heard().to_the_end(code, channel=False) as heard:
        assert (heard.output, heard.child.secret) == (b"False\n", "")


@pytest.mark.parametrize("deaf", [False, True])
async def test_records_are_whole_and_the_last_of_them_come_before_the_exit(deaf: bool) -> None:
    code = ENGINE + "os.write(fd, b''.join(b'{\"number\": %d}\\n' % n for n in range(3000)) + b'half')"
    async with Heard().to_the_end(code, deaf=deaf) as heard:
        assert heard.records == [b'{"number": %d}' % number for number in range(3000)]
        assert heard.at_the_end == 3000


async def test_a_record_without_an_end_closes_the_channel_and_harms_nobody() -> None:
    code = ENGINE + f"import socket; s = socket.socket(fileno=fd); s.sendall(b'x' * {8 * MAX_RECORD})"
    async with Heard().to_the_end(code) as heard:
        assert heard.records == []
        assert b"BrokenPipeError" in heard.output or b"ConnectionResetError" in heard.output


async def test_a_child_that_ends_at_once_leaves_no_descriptor() -> None:
    async with Heard().to_the_end("pass"):
        pass
    before = psutil.Process().num_fds()
    for _ in range(5):
        async with Heard().to_the_end("pass"):
            pass
    assert psutil.Process().num_fds() == before


async def test_what_cannot_be_started_leaves_no_descriptor() -> None:
    held = []
    for _ in range(3):
        with pytest.raises(OSError, match="No such file"):
            await Child.spawn(
                ["/nowhere"], {}, on_output=print, on_exit=lambda: None, on_record=lambda line: None
            )
        await settle()  # the loop closes its own pipes
        held.append(psutil.Process().num_fds())
    assert held == [held[0]] * 3
