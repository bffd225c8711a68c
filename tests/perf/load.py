"""The client side of the measurements: raw HTTP/1.1, so that it costs little beside what it measures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

END_OF_CHUNKS = b"0\r\n\r\n"
DATA = b"data: "


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: seconds to the first event, seconds in all, how many events."""

    first: float
    total: float
    events: int


class Connection(asyncio.Protocol):
    """A connection that is kept as long as the server keeps it. One request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._done.done():
            self._finish()  # the end of an answer without a length

    async def ask(self, port: int, request: bytes) -> Reply:
        """Send the request and wait for the end of the answer. Raises RuntimeError for any status but 200."""
        loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = loop.create_future()
        self._head = b""
        self._body_left: int | None = None
        self._events = 0
        self._tail = b""
        began = time.perf_counter()
        self._first = 0.0
        if self._transport is None:
            await loop.create_connection(lambda: self, "127.0.0.1", port)
        assert self._transport is not None
        self._transport.write(request)
        await self._done
        if not self._head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            raise RuntimeError(f"answered {self._head[:300]!r}")
        return Reply(self._first - began, time.perf_counter() - began, self._events)

    def data_received(self, data: bytes) -> None:
        if not self._tail:
            data = self._take_head(data)
            if not self._tail:
                return
        count = data.count(DATA)
        if count and not self._events:
            self._first = time.perf_counter()
        self._events += count
        if self._body_left is not None:
            self._body_left -= len(data)
            if self._body_left <= 0:
                self._finish()
            return
        self._tail = (self._tail + data)[-8:]
        if self._chunked and self._tail.endswith(END_OF_CHUNKS):
            self._finish()

    def _take_head(self, data: bytes) -> bytes:
        self._head += data
        head, found, rest = self._head.partition(b"\r\n\r\n")
        if not found:
            return b""
        self._head, self._tail = head, b"\r\n"
        lower = head.lower()
        self._chunked = b"transfer-encoding: chunked" in lower
        if b"content-length: " in lower and not head.startswith(
            b"HTTP/1.0"
        ):  # else it ends with the connection
            self._body_left = int(lower.partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        return rest

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def request(port: int, body: bytes, *headers: str) -> bytes:
    more = "".join(f"{header}\r\n" for header in headers)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        "Authorization: Bearer local\r\nAccept: */*\r\nUser-Agent: opencode/1.18\r\n"
        f"Content-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


async def run(
    port: int, body: bytes, clients: int, each: int, *headers: str
) -> tuple[Sequence[Reply], float]:
    """`clients` at once, each with so many requests one after the other; the answers, and the seconds taken."""
    sent = request(port, body, *headers)

    async def one() -> list[Reply]:
        connection = Connection()
        replies = [await connection.ask(port, sent) for _ in range(each)]
        connection.close()
        return replies

    began = time.perf_counter()
    lists = await asyncio.gather(*(one() for _ in range(clients)))
    return [reply for replies in lists for reply in replies], time.perf_counter() - began
