"""A client's connection, with a quick way for plain requests.

Theory of operation. Most requests are completions in one plain form (see `plain`). Those are read and answered
here, one after the other. At the first bytes that are anything else, a request that is to be refused among them,
the connection becomes aiohttp's with all that was not answered yet, and stays so. So there is one place that
refuses, and nothing here needs to know how.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

from draftd.web import plain
from draftd.web.client import EVENT_STREAM, Client
from draftd.web.plain import PlainRequest

PATIENCE = 1.0  # seconds that a body may be late; then its request is aiohttp's, with its own limit
MOST_AHEAD = 256 * 1024  # bytes of later requests that are read while one is answered
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Ways:
    """What a connection is given: whether a request is let in, how it is answered, who takes all others.

    `idle` and `write` are seconds: of a connection without a request, and for a client to read what is sent.
    """

    admits: Callable[[PlainRequest], bool]
    answer: Callable[[PlainClient, str], Awaitable[None]]
    others: Callable[[], asyncio.Protocol]
    idle: float
    write: float
    open: set[Connection] = field(default_factory=set)


class Connection(asyncio.Protocol):
    """See the module. `call` is the request that is answered now."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._request: PlainRequest | None = None  # whose body is not here yet
        self._late: asyncio.TimerHandle | None = None
        self._rested = self._loop.time()  # when the last answer ended
        self._writable = asyncio.Event()
        self._writable.set()
        self.call: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only
        self._ways.open.add(self)
        self._resting = self._loop.call_later(self._ways.idle, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        self._let_go()
        self._writable.set()
        if self.call is not None:
            self.call.cancel()

    def _let_go(self) -> None:
        self._ways.open.discard(self)
        self._resting.cancel()
        if self._late is not None:
            self._late.cancel()

    def _look(self) -> None:
        """Close a connection that nobody uses."""
        rest = self._rested + self._ways.idle - self._loop.time()
        busy = self.call is not None or self._request is not None
        if rest <= 0 and not busy:
            self._transport.close()
        else:
            self._resting = self._loop.call_later(self._ways.idle if busy else rest, self._look)

    # --- reading ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Something of a request, or of one that is to come after the one that is answered now."""
        self._received += data
        if self.call is None:
            self._next()
        elif len(self._received) > MOST_AHEAD:
            self._transport.pause_reading()

    def _next(self) -> None:
        request = self._request or plain.read(self._received)
        if request is None or not (self._request or self._ways.admits(request)):
            self._hand_over()
            return
        end = request.size + request.length
        if len(self._received) < end:
            if self._request is None:
                self._request = request
                self._late = self._loop.call_later(PATIENCE, self._hand_over)
            return
        if self._late is not None:
            self._late.cancel()
        self._request = self._late = None
        body = bytes(self._received[request.size : end])
        del self._received[:end]
        self.call = self._loop.create_task(self._answer(request.path, body))

    def _hand_over(self) -> None:
        """Let aiohttp have the connection, and what came."""
        self._let_go()
        protocol = self._ways.others()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(bytes(self._received))

    async def _answer(self, path: str, body: bytes) -> None:
        try:
            await self._ways.answer(PlainClient(self, body), path)
        finally:
            self.call = None
        if self._transport.is_closing():
            return
        self._rested = self._loop.time()
        if self._received:
            self._transport.resume_reading()
            self._next()

    # --- writing ---------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable.set()

    async def write(self, data: bytes) -> None:
        """Raises OSError if the client left, TimeoutError if it does not read."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client left")
        self._transport.write(data)
        if not self._writable.is_set():
            async with asyncio.timeout(self._ways.write):
                await self._writable.wait()

    def close(self) -> None:
        """Close, after what was written has been sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()


class PlainClient(Client):
    """One whose request a `Connection` has read."""

    def __init__(self, connection: Connection, body: bytes) -> None:
        super().__init__({})
        self._connection = connection
        self._body = body
        self._begun = False

    @property
    def begun(self) -> bool:
        return self._begun

    async def body(self) -> bytes:
        return self._body

    async def answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """An answer in one piece, of JSON."""
        own = {**JSON, "Content-Length": str(len(body)), **(headers or {})}
        await self._connection.write(self._head(status, own) + body)

    async def write(self, data: bytes) -> None:
        await self._connection.write(self._framed(data))

    async def finish(self, data: bytes) -> None:
        await self._connection.write(self._framed(data) + b"0\r\n\r\n")

    def _framed(self, data: bytes) -> bytes:
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""  # an empty one is the end
        if self._begun:
            return chunk
        self._begun = True
        return self._head(200, {**EVENT_STREAM, "Transfer-Encoding": "chunked"}) + chunk

    def _head(self, status: int, headers: dict[str, str]) -> bytes:
        fields = headers | self.told | {"Date": _date(int(time.time()))}
        lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
        return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode()

    def cut(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        """Break off the connection: the client left or does not read."""
        self._connection.abort()


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
