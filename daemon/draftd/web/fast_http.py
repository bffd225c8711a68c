"""The transport for requests in the one form that nearly all have; any other request is aiohttp's to read.

Theory of operation. Most requests are completions in a plain form: HTTP/1.1 with each header once, in ASCII and on
one line, a body with a length, and nothing that changes how either is read. They are read here, at a glance, and
answered one after the other. At the first bytes that leave any doubt, or that are to be refused, the connection
becomes aiohttp's together with all that was not answered yet, and stays so. So nothing here has to know how
anything is refused, and no policy is made here: that is for `pipeline`.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.client import responses
from typing import cast

from draftd import clock
from draftd.web.addresses import COMPLETIONS, meant
from draftd.web.client import (
    JSON,
    MAX_HEADERS,
    MAX_READ_AHEAD,
    STREAM_HEADERS,
    ClientExchange,
    Limits,
    RequestHead,
)
from draftd.web.pipeline import Pipeline

MAX_HEAD = 8192  # bytes
# Seconds by which a body may arrive later than its head. After that the request is aiohttp's, with the limit from
# the settings: a slow client does not notice the difference, and the timeout is in one place.
PATIENCE = 0.1
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_HEAD = re.compile(rb"POST (/[a-z0-9_/]++) HTTP/1\.1\r\n((?:" + _NAME + rb":[ -~]*+\r\n)++)\r\n")
_FIELD = re.compile(r"([^:]++): *+([^\r]*+)\r\n")
_LENGTH = re.compile(r"[0-9]{1,12}")
_OF_STREAMS = "".join(
    f"{name}: {value}\r\n" for name, value in (*STREAM_HEADERS.items(), ("Transfer-Encoding", "chunked"))
)
_ODD = frozenset(
    {"Transfer-Encoding", "Content-Encoding", "Expect", "Upgrade", "Trailer", "Origin", "Proxy-Connection"}
)


def read_head(data: bytes | bytearray) -> tuple[RequestHead, int] | None:
    """The head that `data` begins with, and its size in bytes; None unless it is all there and plain."""
    match = _HEAD.match(data)
    if match is None or match.end() > MAX_HEAD:
        return None
    fields = _FIELD.findall(match[2].decode("ascii"))
    if len(fields) > MAX_HEADERS:
        return None
    headers = {name.title(): value.rstrip(" ") for name, value in fields}
    length = headers.get("Content-Length", "")
    plain = len(headers) == len(fields) and headers.keys().isdisjoint(_ODD) and _LENGTH.fullmatch(length)
    if not plain or headers.get("Connection", "keep-alive").lower() != "keep-alive":
        return None
    path = match[1].decode("ascii")
    address = path if path in COMPLETIONS else meant(path)
    return RequestHead("POST", path, address, headers, int(length)), match.end()


@dataclass(frozen=True, slots=True)
class FastServer:
    """What all connections share. `fallback` makes aiohttp's side of a connection; `connections` are those that are
    still ours.
    """

    pipeline: Pipeline
    limits: Limits
    fallback: Callable[[], asyncio.Protocol]
    connections: set[FastConnection] = field(default_factory=set)


class FastConnection(asyncio.Protocol):
    """See the module's docstring. `call` answers the current request."""

    def __init__(self, server: FastServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._request: tuple[RequestHead, int] | None = None  # whose body has not come yet
        self._late: asyncio.TimerHandle | None = None
        self._idle_since = time.monotonic()
        self._writable = asyncio.Event()
        self._writable.set()
        self.call: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, but not the type
        self._server.connections.add(self)
        self._idle_timer = clock.Timer(self._server.limits.idle, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self._let_go()
        self._writable.set()
        if self.call is not None:
            self.call.cancel()

    def _let_go(self) -> None:
        self._server.connections.discard(self)
        self._idle_timer.cancel()
        if self._late is not None:
            self._late.cancel()

    def _close_if_idle(self) -> None:
        limit = self._server.limits.idle
        left = self._idle_since + limit - time.monotonic()
        busy = self.call is not None or self._request is not None
        if left <= 0 and not busy:
            self._transport.close()
        else:
            self._idle_timer = clock.Timer(limit if busy else left, self._close_if_idle)

    # --- reading ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """A part of a request, or of those that are to be answered after the current one."""
        self._received += data
        if self.call is None:
            self._next()
        elif len(self._received) > MAX_READ_AHEAD:
            self._transport.pause_reading()

    def _next(self) -> None:
        request = self._request or read_head(self._received)
        if request is None or not (self._request or self._server.pipeline.takes_completion(request[0])):
            self._fall_back()
            return
        head, size = request
        end = size + head.length
        if len(self._received) < end:
            if self._request is None:
                self._request = request
                self._late = self._loop.call_later(PATIENCE, self._fall_back)
            return
        if self._late is not None:
            self._late.cancel()
        self._request = self._late = None
        with memoryview(self._received) as received:
            body = bytes(received[size:end])
        del self._received[:end]
        self.call = self._loop.create_task(self._answer(FastExchange(self, head, body)))

    def _fall_back(self) -> None:
        """Let aiohttp have the connection, and what has come."""
        self._let_go()
        protocol = self._server.fallback()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(bytes(self._received))

    async def _answer(self, exchange: FastExchange) -> None:
        pipeline = self._server.pipeline
        try:
            await pipeline.run(exchange, pipeline.complete)
        finally:
            self.call = None
        if self._transport.is_closing():
            return
        self._idle_since = time.monotonic()
        if self._received:
            self._transport.resume_reading()
            self._next()

    # --- writing ---------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable.set()

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError if the client has left, TimeoutError if it does not read."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client has left")
        self._transport.write(data)
        if not self._writable.is_set():
            async with clock.limit(self._server.limits.write):
                await self._writable.wait()

    def close(self) -> None:
        """Close when everything written has been sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()


class FastExchange(ClientExchange):
    """An exchange whose request a FastConnection has read."""

    def __init__(self, connection: FastConnection, head: RequestHead, body: bytes) -> None:
        super().__init__(head)
        self._connection = connection
        self._body = body
        self._begun = False

    @property
    def begun(self) -> bool:
        return self._begun

    async def body(self) -> bytes:
        body, self._body = self._body, b""  # it may be large, and the answer may take minutes
        return body

    async def answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        self.status = status
        self._begun = True
        head = self._head(f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n")
        await self._connection.write(head + body)

    async def write(self, data: bytes) -> None:
        await self._connection.write(self._framed(data))

    async def finish(self, data: bytes) -> None:
        await self._connection.write(self._framed(data) + b"0\r\n\r\n")

    def _framed(self, data: bytes) -> bytes:
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""  # an empty chunk is the end
        if self._begun:
            return chunk
        self._begun = True
        return self._head(f"Content-Type: {self.stream_type}\r\n{_OF_STREAMS}") + chunk

    def _head(self, own: str) -> bytes:
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        phrase, date = responses.get(self.status, ""), _date(int(time.time()))
        return f"HTTP/1.1 {self.status} {phrase}\r\n{own}{lines}Date: {date}\r\n\r\n".encode()

    def cut(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        self._connection.abort()


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
