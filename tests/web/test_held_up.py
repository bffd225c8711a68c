"""A daemon that is held up, as by a machine that swaps: what has come is read before anybody is too late."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest
import uvloop

from draftd import clock
from tests.harness import fake, serving
from tests.web.raw_http import Wire

IDLE = 0.3  # seconds


@pytest.mark.fault(210)
@pytest.mark.parametrize("first", [b"", b"POST /v1/chat/comp"], ids=["idle", "half a head"])
def test_a_request_that_came_while_nobody_looked_is_answered(
    wire: Wire, tmp_path: Path, first: bytes
) -> None:
    """On uvloop, as in a daemon: it calls timers before it reads."""
    request = wire.chat(model="nobody")

    async def ask() -> tuple[bytes, bytes]:
        loop = asyncio.get_running_loop()
        async with serving(tmp_path, {"a": fake()}, ready=False, connection_timeout=IDLE) as served:
            with socket.create_connection(("127.0.0.1", served.daemon.settings.port)) as client:
                client.setblocking(False)
                await loop.sock_sendall(client, request)
                before = await loop.sock_recv(client, 2**16)
                await loop.sock_sendall(client, first)
                for _ in range(10):
                    await asyncio.sleep(0)  # turns of the loop, in which the daemon reads that
                client.send(request.removeprefix(first))
                time.sleep(IDLE + 2 * clock.LATE)  # noqa: ASYNC251 - this is what holds it up
                return before, await loop.sock_recv(client, 2**16)

    before, after = uvloop.run(ask())
    assert before.startswith(b"HTTP/1.1 404 ")
    assert after.startswith(b"HTTP/1.1 404 ")
