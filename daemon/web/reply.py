"""The client's side of one streamed answer: headers as late as honesty allows, comments while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from daemon.errors import DraftdError
from daemon.web.replies import error_event

# What the handlers tell the middleware about a request.
REQUEST_ID = web.RequestKey("request_id", str)
PROFILE = web.RequestKey("profile", str)
STATUS = web.RequestKey("status", int)  # that a stream would have had, had its error come before its headers
KEEPALIVE = b": keepalive\n\n"


class StreamReply:
    """Until the first byte is sent an error can still be an honest status; afterwards it is an event, and the
    body is cut without its end mark, so that no client takes the answer for a complete one.
    """

    def __init__(
        self, request: web.Request, headers: Mapping[str, str], keepalive: float, write_timeout: float
    ) -> None:
        self._request = request
        self._keepalive = keepalive
        self._write_timeout = write_timeout
        self._quiet = True
        self._writing = asyncio.Lock()
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", **headers}
        )

    @property
    def begun(self) -> bool:
        """Whether the client has been sent anything."""
        return self.response.prepared

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Send a comment after each `keepalive` seconds of silence while the block runs."""
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            await asyncio.wait([ticking])

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._keepalive)
            if self._quiet:
                try:
                    await self.send(KEEPALIVE)
                except OSError:  # the client left; its handler is told by the server
                    return
            self._quiet = True

    async def send(self, data: bytes) -> None:
        """Write to the client, headers first. Raises OSError if it left or does not read."""
        async with self._writing, asyncio.timeout(self._write_timeout):
            if not self.response.prepared:
                await self.response.prepare(self._request)
            self._quiet = False
            await self.response.write(data)

    async def finish(self) -> None:
        """The regular end."""
        await self.response.write_eof()

    async def fail(self, error: DraftdError) -> None:
        """Tell the error as an event and cut the body."""
        await self.send(error_event(error))
        self.response.force_close()
        if self._request.transport is not None:
            self._request.transport.close()
