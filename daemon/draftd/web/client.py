"""The seam between the transports and the proxy: one request of a client, and how it can be answered."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from draftd.errors import DraftdError
from draftd.peers.bodies import Body
from draftd.telemetry.request_record import RequestRecord

JSON = "application/json"
MAX_HEADERS = 128  # of one request
# Bytes of later requests that are read while one is answered. That a client has left is noticed at the end of what
# it sent, and systems buffer up to 6 MB of that for us; beyond this it is noticed when the answer is written.
MAX_READ_AHEAD = 8 * 2**20
EVENT_STREAM = "text/event-stream"
# In addition to their content type; nginx buffers what it passes on unless it is told not to.
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
KEEPALIVE = b": keepalive\n\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client is allowed: bytes of a body, and of one that waits in a file in the `folder`; seconds for the
    body to arrive, for the client to read what is sent, and for a connection without a request.
    """

    max_body: int
    max_upload: int
    folder: Path
    body: float
    write: float
    idle: float


class RequestHead(msgspec.Struct, eq=False):
    """A request without its body. `target` is what stood in the request line, `path` the same without its query,
    percent-decoded. `headers` are looked up by names in title case. `length` is the size of the body in bytes as
    the client announced it, 0 if it did not.
    """

    method: str
    target: str
    path: str
    headers: Mapping[str, str]
    length: int


class ClientExchange(ABC):
    """A request and its answer, which is either one piece (`answer`) or a stream (`write`, then `finish` or `cut`).

    `headers` will be part of whatever answer there is; `status` is the answer's. `profile` is None as long as the
    request has not been routed to one; once it is, `repeated` is what the answer repeats of the request. `failed`
    makes the end of a stream that breaks off, in a dialect that has a regular one. Sending raises ConnectionError
    if the client has left, TimeoutError if it does not read.
    """

    stream_type = EVENT_STREAM  # the content type of a stream

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.headers: dict[str, str] = {}
        self.status = 200
        self.profile: str | None = None
        self.repeated: Mapping[str, Any] = {}
        self.failed: Callable[[DraftdError], bytes] | None = None
        self.record: RequestRecord | None = None  # its entry in the journal

    @property
    @abstractmethod
    def begun(self) -> bool:
        """Whether anything has been sent."""

    @abstractmethod
    async def body(self) -> bytes:
        """The body of the request. Raises RequestError (408, 413)."""

    async def any_body(self) -> Body:
        """The body of a request that is passed on, which may be too large for memory.

        Raises RequestError (408, 413), and WorkerError (507) if it finds no room.
        """
        return await self.body()

    @abstractmethod
    async def answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        """Send the whole answer."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send a part of a stream, after its headers if it is the first."""

    @abstractmethod
    async def finish(self, data: bytes) -> None:
        """Send the last part of a stream, and its regular end."""

    @abstractmethod
    def cut(self) -> None:
        """End a stream without its end mark, so that no client takes it for complete: close the connection when
        everything written has been sent.
        """

    @abstractmethod
    def abort(self) -> None:
        """Close the connection now; what has not been sent is lost."""


class StreamReply:
    """Writes one stream to a client: the headers as late as possible, so that an error can still have an honest
    status, and comments while there is nothing else to send.
    """

    def __init__(self, exchange: ClientExchange, keepalive: float) -> None:
        self._exchange = exchange
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
                except OSError:  # the client has left: the transport tells whoever answers it
                    return
            self._quiet = True
            await asyncio.sleep(self._keepalive)

    async def send(self, data: bytes) -> None:
        """Send a part of the stream. Raises as ClientExchange says."""
        async with self._writing:
            self._quiet = False
            await self._exchange.write(data)

    async def finish(self, data: bytes) -> None:
        """The regular end, with the last of the data."""
        async with self._writing:
            await self._exchange.finish(data)
