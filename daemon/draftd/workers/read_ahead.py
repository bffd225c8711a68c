"""What a worker reads before anybody asks for it, while it is idle after its start.

A reading is a request like any other, of one token: so all of it is done as for the request that will come, and
stands in the prompt cache afterwards. It is given up the moment that a request comes, by closing its connection;
what was read until then is kept. It goes on when the worker has been idle for a while again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress

import aiohttp
import structlog

from draftd.protocol import AHEAD_HEADER
from draftd.workers.beginning import Beginning
from draftd.workers.command import HOST
from draftd.workers.watched import Watched

log = structlog.get_logger("worker")

QUIET = 1.0  # seconds without a request after which a worker is idle
PATH = "/v1/chat/completions"
MAX_SHOWN = 300  # bytes of an answer that refuses a text


async def read_ahead(child: Watched, session: aiohttp.ClientSession) -> None:
    """Have a ready child read its beginnings, one after the other, whenever it is idle."""
    waiting = deque(child.beginnings())
    while waiting:
        await child.usage.until_idle(QUIET)
        if await _is_read(child, session, waiting[0]):
            waiting.popleft()


async def _is_read(child: Watched, session: aiohttp.ClientSession, beginning: Beginning) -> bool:
    """Have it read; whether it is done with, well or not. A request that comes ends it."""
    reading = asyncio.ensure_future(_read(child, session, beginning))
    coming = asyncio.ensure_future(child.usage.until_asked())
    try:
        await asyncio.wait({reading, coming}, return_when=asyncio.FIRST_COMPLETED)
        return reading.done()
    finally:
        for task in (reading, coming):
            task.cancel()
        await asyncio.wait({reading, coming})


async def _read(child: Watched, session: aiohttp.ClientSession, beginning: Beginning) -> None:
    began, name = time.monotonic(), child.profile().name
    headers = {**child.headers, **beginning.headers, AHEAD_HEADER: "1", "Content-Type": "application/json"}
    url = f"http://{HOST}:{child.port}{PATH}"
    with suppress(aiohttp.ClientError, OSError):  # it ends, or does not take this
        async with session.post(
            url, data=beginning.payload, headers=headers, allow_redirects=False
        ) as answer:
            said = b""
            async for piece in answer.content.iter_any():
                said = (said + piece)[:MAX_SHOWN]
            took = f"{time.monotonic() - began:.1f} s"
            if answer.status == 200:
                log.info("read ahead", worker=name, what=beginning.name, took=took)
            else:
                reason = f"HTTP {answer.status}: {said.decode(errors='replace')}"
                log.warning("a text cannot be read ahead", worker=name, what=beginning.name, reason=reason)
