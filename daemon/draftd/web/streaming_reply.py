"""The client's side of one streamed answer: headers as late as honesty allows, comments while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from draftd.errors import DraftdError
from draftd.web.client import Client
from draftd.web.error_bodies import error_event

KEEPALIVE = b": keepalive\n\n"


class StreamReply:
    """Until the first byte is sent an error can still be an honest status; afterwards it is an event, and the
    body is cut without its end mark, so that no client takes the answer for a complete one.
    """

    def __init__(self, client: Client, keepalive: float) -> None:
        self._client = client
        self._keepalive = keepalive
        self._quiet = True
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Send a comment after each `keepalive` seconds of silence while the block runs."""
        ticking: list[asyncio.Task[None]] = []  # most answers come before there is need for one
        timer = asyncio.get_running_loop().call_later(
            self._keepalive, lambda: ticking.append(asyncio.create_task(self._tick()))
        )
        try:
            yield
        finally:
            timer.cancel()
            for task in ticking:
                task.cancel()
                await asyncio.wait([task])

    async def _tick(self) -> None:
        while True:
            if self._quiet:
                try:
                    await self.send(KEEPALIVE)
                except OSError:  # the client left; its handler is told by the server
                    return
            self._quiet = True
            await asyncio.sleep(self._keepalive)

    async def send(self, data: bytes) -> None:
        """Write to the client. Raises OSError if it left or does not read."""
        async with self._writing:
            self._quiet = False
            await self._client.write(data)

    async def finish(self, data: bytes) -> None:
        """The regular end, with the last of the data."""
        async with self._writing:
            await self._client.finish(data)

    async def fail(self, error: DraftdError) -> None:
        """Tell the error as an event and cut the body."""
        await self.send(error_event(error))
        self._client.cut()
