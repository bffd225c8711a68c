"""How a connection over TLS begins, and the answer to a client that speaks plain HTTP where TLS is spoken.

Such a client would see nothing but the end of its connection, and its user would look for the fault elsewhere. So
the first byte is looked at before the handshake takes it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from draftd import clock
from draftd.errors import RequestError
from draftd.web.client import JSON
from draftd.web.error_bodies import error_body
from draftd.web.pipeline import identity

HANDSHAKE = b"\x16"  # the first byte of every connection over TLS
FAREWELL = 2.0  # seconds that a client has for reading the refusal, or for its part of the end of TLS


@dataclass(frozen=True, slots=True)
class Tls:
    """`context` is for a connection that begins now; `handshake`: seconds that a client has for its part of it."""

    context: Callable[[], ssl.SSLContext]
    handshake: float


async def begin(connection: socket.socket, make: Callable[[], asyncio.Protocol], tls: Tls) -> None:
    """Let the protocol that `make` makes have the connection once TLS is spoken. Raises OSError if it is not."""
    loop = asyncio.get_running_loop()
    async with clock.limit(tls.handshake):
        first = await _first_byte(connection)
    if first not in {HANDSHAKE, b""}:
        await loop.connect_accepted_socket(PlainRefusal, connection)
        return
    await loop.connect_accepted_socket(
        make,
        connection,
        ssl=tls.context(),
        ssl_handshake_timeout=tls.handshake,
        ssl_shutdown_timeout=FAREWELL,
    )


async def _first_byte(connection: socket.socket) -> bytes:
    """The first byte, which stays where it is; b"" if the client leaves instead."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            with suppress(BlockingIOError):
                return connection.recv(1, socket.MSG_PEEK)
    finally:
        loop.remove_reader(connection)


class PlainRefusal(asyncio.Protocol):
    """Says that TLS is spoken here, and reads on until the client has had time to read that."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer."""
        to_client = cast(asyncio.Transport, transport)  # uvloop's has the methods, but not the type
        error = RequestError(400, "this port speaks https: write https:// in the address", code="https_only")
        body = json.dumps(error_body(error)).encode()
        headers = identity() | {
            "Content-Type": JSON,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        to_client.write(f"HTTP/1.1 400 Bad Request\r\n{lines}\r\n".encode() + body)
        self._end = asyncio.get_running_loop().call_later(FAREWELL, to_client.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self._end.cancel()
