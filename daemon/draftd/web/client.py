"""Who asked for a completion: what came, and the ways to answer. `WebClient` is one that came through aiohttp."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass

from aiohttp import web

from draftd.errors import RequestError

EVENT_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: for a body to come, for a client to read what is sent, of silence before a comment is sent."""

    body: float
    write: float
    keepalive: float


class Client(ABC):
    """`told` are headers of the answer, whatever it will be; `profile` is None as long as none is found.

    `status` is the one that a stream would have had, had its error come before its headers; else None. Writing
    raises OSError if the client left, TimeoutError if it does not read.
    """

    def __init__(self, told: dict[str, str]) -> None:
        self.told = told
        self.profile: str | None = None
        self.status: int | None = None

    @property
    @abstractmethod
    def begun(self) -> bool:
        """Whether the client has been sent anything."""

    @abstractmethod
    async def body(self) -> bytes:
        """What came. Raises RequestError (408, 413)."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """A part of a stream, after its headers."""

    @abstractmethod
    async def finish(self, data: bytes) -> None:
        """The last part of a stream, and its regular end."""

    @abstractmethod
    def cut(self) -> None:
        """End a stream without its end mark."""


class WebClient(Client):
    """One whose request aiohttp has read; `response` is for a stream."""

    def __init__(self, request: web.Request, told: dict[str, str], limits: Limits) -> None:
        super().__init__(told)
        self._request = request
        self._limits = limits
        self.response = web.StreamResponse(headers=EVENT_STREAM)

    @property
    def begun(self) -> bool:
        return self.response.prepared

    async def body(self) -> bytes:
        try:
            async with asyncio.timeout(self._limits.body):
                return await self._request.read()
        except TimeoutError as error:
            raise RequestError(408, f"the body did not come within {self._limits.body:.0f} s") from error
        except web.HTTPRequestEntityTooLarge as error:
            raise RequestError(413, "the body is too large (see max_body_bytes)") from error

    async def write(self, data: bytes) -> None:
        async with asyncio.timeout(self._limits.write):
            await self._begin()
            await self.response.write(data)

    async def finish(self, data: bytes) -> None:
        async with asyncio.timeout(self._limits.write):
            await self._begin()
            await self.response.write_eof(data)

    async def _begin(self) -> None:
        if not self.response.prepared:
            await self.response.prepare(self._request)

    def cut(self) -> None:
        self.response.force_close()
        if self._request.transport is not None:
            self._request.transport.close()
