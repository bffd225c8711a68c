"""HTTP spoken byte by byte, over the transport that a test is about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from tests.harness import LIMIT, Served, chat

Transport = Literal["fast", "aiohttp"]
TRANSPORTS: tuple[Transport, ...] = ("fast", "aiohttp")
CHAT = "/v1/chat/completions"
# A tab in a value is allowed and changes nothing; but the fast transport does not take it, and aiohttp keeps the
# connection from then on.
NOT_FAST = "X-Not-Fast: a\tb"


@dataclass(frozen=True)
class RawAnswer:
    """The names in `headers` are in lower case. `whole`: the body came to its end mark; `interim`: the 1xx statuses
    that came first.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool
    interim: tuple[int, ...] = ()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


class Connection:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def port(self) -> int:
        """The client's own port."""
        port: int = self.writer.get_extra_info("sockname")[1]
        return port

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, limit: float = LIMIT) -> RawAnswer:
        """The next answer. Raises IncompleteReadError if the connection ends before its headers do."""
        async with asyncio.timeout(limit):
            interim: list[int] = []
            while True:
                status, headers = await self._head()
                if status >= 200:
                    break
                interim.append(status)
            body, whole = b"", True
            try:
                if headers.get("transfer-encoding") == "chunked":
                    async for chunk in self._chunks():
                        body += chunk
                elif "content-length" in headers:
                    body = await self.reader.readexactly(int(headers["content-length"]))
                elif status != 204:
                    body = await self.reader.read()
            except (asyncio.IncompleteReadError, ConnectionError):
                whole = False
            return RawAnswer(status, headers, body, whole, tuple(interim))

    async def _head(self) -> tuple[int, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        assert first.startswith(("HTTP/1.1 ", "HTTP/1.0 ")), first
        fields = [line.split(": ", 1) for line in lines]
        names = [name.lower() for name, _ in fields]
        assert len(set(names)) == len(names), head
        return int(first.split(" ", 2)[1]), dict(zip(names, [value for _, value in fields], strict=True))

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"

    async def rest(self, *, limit: float = LIMIT) -> bytes:
        """All that comes until the connection is closed."""
        async with asyncio.timeout(limit):
            return await self.reader.read()


@dataclass(frozen=True)
class Wire:
    """Speaks to the daemon over one transport."""

    transport: Transport

    def request(
        self,
        body: bytes,
        *headers: str,
        method: str = "POST",
        path: str = CHAT,
        host: str = "127.0.0.1",
        version: str = "1.1",
        kind: str = "application/json",
    ) -> bytes:
        """A request with exactly these headers beside Host and Content-Type."""
        lines = [f"{method} {path} HTTP/{version}", f"Host: {host}", f"Content-Type: {kind}", *headers]
        if self.transport == "aiohttp":
            lines.append(NOT_FAST)
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def post(self, body: bytes, *headers: str, **options: Any) -> bytes:
        """A request with the length of its body."""
        return self.request(body, f"Content-Length: {len(body)}", *headers, **options)

    def chat(self, text: str = "hi", *headers: str, **fields: Any) -> bytes:
        return self.post(json.dumps(chat(text, **{"model": "a"} | fields)).encode(), *headers)

    @asynccontextmanager
    async def connect(
        self, served: Served, *, used: bool = False, limit: int = 2**16
    ) -> AsyncIterator[Connection]:
        """A connection; with `used` it has served a request before, so that what comes next finds it in this
        transport's hands.
        """
        port = served.daemon.settings.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
        connection = Connection(reader, writer)
        try:
            if used:
                connection.send(self.chat(model="nobody"))
                await connection.answer()
            yield connection
        finally:
            writer.transport.abort()

    async def ask(self, served: Served, data: bytes, *, limit: float = LIMIT) -> RawAnswer:
        """Send bytes on a connection of their own; the first answer."""
        async with self.connect(served) as connection:
            connection.send(data)
            return await connection.answer(limit=limit)
