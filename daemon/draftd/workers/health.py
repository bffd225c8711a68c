"""Is the worker ready, and is it well? Asked over its own port, after making sure that the port is its own."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import psutil

from draftd.workers.command import HOST

# Seconds between looks at the sockets of a child that loads. Our engine is looked at often at first, at 0.05 ms a
# look, so that the wait for the next one adds about 1 % to a start; a family only every POLL: see _members.
FIRST_POLL = 0.01
GROWTH = 1.02
POLL = 0.1
MAX_POLL = 2.0


def owns_port(pid: int, port: int, *, family: bool) -> bool:
    """Whether the process `pid`, or with `family` a descendant, listens on `port`.

    A stranger on the port would answer our probes just as well, and would then be sent prompts.
    """
    try:
        return any(_listens(member, port) for member in _members(pid, family=family))
    except psutil.Error:
        return False


def _members(pid: int, *, family: bool) -> list[psutil.Process]:
    """The process, and its descendants if asked for: finding those means a walk through all processes there are,
    some milliseconds each time, which our engine, a single process, can be spared. Raises psutil.Error.
    """
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)] if family else [process]


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        found = process.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port for c in found)


def memory_of(pid: int, *, family: bool) -> int | None:
    """Resident bytes of the process, and with `family` of its descendants; None if it is gone."""
    try:
        return sum(member.memory_info().rss for member in _members(pid, family=family))
    except psutil.Error:
        return None


async def until_ready(
    session: aiohttp.ClientSession, pid: int, port: int, body: dict[str, Any], *, family: bool
) -> None:
    """Return once the child owns the port and one token came back. Waits for ever: the caller has the limit."""
    wait = POLL if family else FIRST_POLL
    while True:
        growth, most = GROWTH, POLL
        if owns_port(pid, port, family=family):
            if await _generates(session, port, body):
                return
            growth, most = 2.0, MAX_POLL  # it answers, but not yet well: ask less and less often
        await asyncio.sleep(wait)
        wait = min(wait * growth, most)


async def _generates(session: aiohttp.ClientSession, port: int, body: dict[str, Any]) -> bool:
    url = f"http://{HOST}:{port}/v1/chat/completions"
    try:
        async with session.post(url, json=body) as response:
            answer = await response.json(content_type=None)
            return response.status == 200 and bool(answer.get("choices"))
    except (aiohttp.ClientError, OSError, ValueError, AttributeError):
        return False


async def is_healthy(session: aiohttp.ClientSession, port: int, timeout: float, *, strict: bool) -> bool:
    """One health check within `timeout` seconds.

    mlx_lm.server has /health, which must say 200 (`strict`); of another server any answer below 500 will do.
    """
    limit = aiohttp.ClientTimeout(total=timeout)
    try:
        async with session.get(f"http://{HOST}:{port}/health", timeout=limit) as response:
            return response.status == 200 if strict else response.status < 500
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
