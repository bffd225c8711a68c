"""Watches one child: is it ready, is it well, does it keep its limits? Reports events and decides nothing.

A child is asked over its own port, after making sure that the port is its own: a stranger on it would answer just
as well, and would then be sent prompts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import psutil

from draftd.profiles import Profile
from draftd.workers.command import HOST, one_token_request
from draftd.workers.process import members
from draftd.workers.states import IDLE, BecameReady, Event, HealthMissed, HealthOk, Stop, Unfit
from draftd.workers.usage import Usage

# Seconds between looks at the sockets of a child that loads. Our engine is looked at often at first, at 0.05 ms a
# look, so that the wait for the next one adds about 1 % to a start; a family only every POLL: see members.
FIRST_POLL = 0.01
GROWTH = 1.02
POLL = 0.1
MAX_POLL = 2.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A child that is watched. `profile` and `memory` (bytes) are asked each time; `drain` is in seconds."""

    pid: int
    port: int
    profile: Callable[[], Profile]
    usage: Usage
    memory: Callable[[], int | None]
    drain: float


async def watch(child: Watched, session: aiohttp.ClientSession, post: Callable[[Event], None]) -> None:
    """Report that the child is ready, once, and then how it is, until cancelled."""
    profile = child.profile()
    request = one_token_request(profile)
    await until_ready(session, child.pid, child.port, request, family=bool(profile.command))
    post(BecameReady())
    while True:
        policy = child.profile().health
        began = time.monotonic()
        well = await is_healthy(session, child.port, policy.timeout, strict=not child.profile().command)
        # A child that generates may be too busy to answer; what it generates is the better sign of life.
        well = well or 0 < child.usage.silent_seconds() < policy.timeout
        post(HealthOk() if well else HealthMissed())
        _look_at_limits(child, post)
        if well:
            await asyncio.sleep(max(0.0, began + policy.interval - time.monotonic()))
        else:
            # The next check follows as soon as this one's time is over: that a child hangs is known after
            # interval + failures x timeout at the latest.
            await asyncio.sleep(max(0.0, began + policy.timeout - time.monotonic()))


def _look_at_limits(child: Watched, post: Callable[[Event], None]) -> None:
    profile = child.profile()
    if profile.limits.memory and (child.memory() or 0) > profile.limits.memory:
        post(Unfit("memory", child.drain))
    if child.usage.silent_seconds() > profile.stall_timeout:
        post(Unfit("stalled"))
    if profile.idle_timeout and child.usage.idle_seconds() >= profile.idle_timeout:
        post(Stop(IDLE))


def owns_port(pid: int, port: int, *, family: bool) -> bool:
    """Whether the process `pid`, or with `family` a descendant, listens on `port`."""
    try:
        return any(_listens(member, port) for member in members(pid, family=family))
    except psutil.Error:
        return False


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        found = process.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port for c in found)


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
