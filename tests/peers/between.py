"""What can happen between two machines: a TCP proxy on loopback that delays, cuts, is mute, or is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.harness import free_ports


class Between:
    """Passes connections on to `target`, as its attributes say now. `delay` is in seconds, for each piece that
    comes back. `cut_after` is after how many bytes of each answer both ends are closed, None for never; 0 closes
    them when the request has been passed on. With `mute` nothing comes back. `accepted` counts connections.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_ports()
        self.delay = 0.0
        self.cut_after: int | None = None
        self.mute = False
        self.accepted = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def up(self) -> None:
        """Take connections."""
        if self._server is None:
            self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)

    async def down(self) -> None:
        """Refuse connections, and break off those that there are: the machine is gone."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._open:
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(writer)
        try:
            there, to_there = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open.add(to_there)
        asking = asyncio.create_task(self._ask(reader, to_there, writer))
        try:
            await self._answer(there, writer)
        finally:
            asking.cancel()
            for one in (writer, to_there):
                one.close()
                self._open.discard(one)

    async def _ask(
        self, reader: asyncio.StreamReader, to_there: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                to_there.write(data)
                if self.cut_after == 0 and data.startswith(b"POST"):
                    await to_there.drain()
                    writer.transport.abort()
            to_there.close()  # the client has left

    async def _answer(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        with suppress(OSError):
            while data := await there.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.mute:
                    continue
                if self.cut_after is not None:
                    data = data[: max(0, self.cut_after - passed)]
                passed += len(data)
                writer.write(data)
                await writer.drain()
                if self.cut_after is not None and passed >= self.cut_after:
                    writer.transport.abort()
            if self.mute:
                await writer.wait_closed()


@asynccontextmanager
async def between(target: int) -> AsyncIterator[Between]:
    """One that takes connections until the block ends."""
    made = Between(target)
    await made.up()
    try:
        yield made
    finally:
        await made.down()
