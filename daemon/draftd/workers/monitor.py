"""Watches one child from its start to its end and reports as events; decides nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from draftd.profiles import Profile
from draftd.workers import command, health
from draftd.workers.states import IDLE, BecameReady, Event, HealthMissed, HealthOk, Stop, Unfit
from draftd.workers.usage import Use


@dataclass(frozen=True, slots=True)
class Watched:
    """One child as the monitor sees it. `profile` is asked each time, as a reload may change its limits."""

    pid: int
    port: int
    profile: Callable[[], Profile]
    use: Use
    memory: Callable[[], int | None]
    drain: float


async def watch(child: Watched, session: aiohttp.ClientSession, post: Callable[[Event], None]) -> None:
    """Report readiness once, then health, memory and idleness; runs until cancelled."""
    profile = child.profile()
    request = command.one_token_request(profile)
    await health.until_ready(session, child.pid, child.port, request, family=bool(profile.command))
    post(BecameReady())
    while True:
        policy = child.profile().health
        began = time.monotonic()
        well = await health.is_healthy(
            session, child.port, policy.timeout, strict=not child.profile().command
        )
        # A child that generates may be too busy to answer; what it generates is the better sign of life.
        well = well or 0 < child.use.silent_seconds() < policy.timeout
        post(HealthOk() if well else HealthMissed())
        _look_at_limits(child, post)
        if well:
            # After a miss the next check follows at once: a hung child is known after
            # interval + failures x timeout at the latest.
            await asyncio.sleep(max(0.0, began + policy.interval - time.monotonic()))
        else:
            await asyncio.sleep(max(0.0, began + policy.timeout - time.monotonic()))


def _look_at_limits(child: Watched, post: Callable[[Event], None]) -> None:
    profile = child.profile()
    if profile.limits.memory and (child.memory() or 0) > profile.limits.memory:
        post(Unfit("memory", child.drain))
    if child.use.silent_seconds() > profile.stall_timeout:
        post(Unfit("stalled"))
    if profile.idle_timeout and child.use.idle_seconds() >= profile.idle_timeout:
        post(Stop(IDLE))
