"""One HTTP request to a worker and its answer, on a connection of its own, as mlx_lm.server closes each.

It does only what a worker on this machine asks for, at a third of what a general client costs a request.
"""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

from daemon.workers.command import HOST

MAX_BUFFERED = 256 * 1024  # bytes of an answer that wait here for a client that reads slowly
CONNECT_TIMEOUT = 5.0  # seconds
_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    "Content-Length: {length}\r\nConnection: close\r\n\r\n"
)


class Exchange(asyncio.Protocol):
    """Open with `ask`; end with `close`, whatever happened."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._ended = False
        self._error: OSError | None = None
        self._news: asyncio.Future[None] | None = None
        self.status = 0  # until the headers came

    async def ask(self, port: int, path: str, payload: bytes) -> None:
        """Send the request and wait for the headers. Raises OSError if nobody takes the connection, EOFError
        if it ends before the headers do.
        """
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await asyncio.get_running_loop().create_connection(lambda: self, HOST, port)
        assert self._transport is not None
        head = _HEAD.format(path=path, host=HOST, port=port, length=len(payload))
        self._transport.write(head.encode() + payload)
        while not self.status and not self._ended:
            await self._changed()
        if not self.status:
            raise EOFError

    async def read(self) -> bytes:
        """What has come since the last call, waiting for some; b"" at the end. Raises OSError."""
        while not self._chunks and not self._ended:
            await self._changed()
        if not self._chunks and self._error is not None:
            raise self._error
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        if self._buffered > MAX_BUFFERED and self._transport is not None:
            self._transport.resume_reading()
        self._buffered = 0
        return data

    def close(self) -> None:
        """Break the connection off, if it still stands."""
        if self._transport is not None:
            self._transport.abort()

    async def _changed(self) -> None:
        self._news = asyncio.get_running_loop().create_future()
        await self._news

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # --- called by the event loop ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only

    def data_received(self, data: bytes) -> None:
        """Parse; what the parser calls is below."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._error, self._ended = OSError(f"no HTTP: {error}"), True
        if self._buffered > MAX_BUFFERED and self._transport is not None:
            self._transport.pause_reading()
        self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of an answer without a length, or of the worker; who reads the answer can tell which."""
        self._ended, self._transport = True, None
        if isinstance(exc, OSError):
            self._error = exc
        self._tell()

    # --- called by the parser -------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        """The status is known."""
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """A piece of the body, freed from chunking."""
        self._chunks.append(data)
        self._buffered += len(data)

    def on_message_complete(self) -> None:
        """The end of an answer with a length."""
        self._ended = True
