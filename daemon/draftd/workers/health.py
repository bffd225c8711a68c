"""Watches one child: when it is ready (loading.py has that part), whether it is healthy, and whether it keeps its
limits. It reports events and decides nothing.

A check that could not be made, because no file descriptor is left, says nothing about the child.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import aiohttp
import structlog

from draftd import clock
from draftd.workers.command import HOST
from draftd.workers.events import IDLE, Event, HealthMissed, HealthOk, Stop, Unfit
from draftd.workers.loading import loads
from draftd.workers.process import contained, tell_fault
from draftd.workers.read_ahead import read_ahead
from draftd.workers.watched import Watched

log = structlog.get_logger("worker")

SLICES = 10  # into which the time of a health check is divided

T = TypeVar("T")


async def watch(child: Watched, session: aiohttp.ClientSession, post: Callable[[Event], None]) -> None:
    """Report how the load is getting on, that the child is ready, and then how it is doing, until cancelled."""
    try:
        if await loads(child, session, post):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_read_ahead(child, session))
                while True:
                    await _check(child, session, post)
    except Exception:
        tell_fault(child.profile().name)
        post(Unfit("fault"))


async def _read_ahead(child: Watched, session: aiohttp.ClientSession) -> None:
    with contained(child.profile().name):
        await read_ahead(child, session)


async def _check(child: Watched, session: aiohttp.ClientSession, post: Callable[[Event], None]) -> None:
    """One health check, a look at the limits, and the wait for the next."""
    policy = child.profile().health
    began = time.monotonic()
    well = await is_healthy(child, session, post)
    if well and (silent := child.silent_rank(policy.timeout)):
        log.warning("a rank is silent", worker=child.profile().name, reason=silent)
        well = False
    # A child that generates may be too busy to answer; the tokens that it generates are the better sign of life.
    if 0 < child.usage.silent_seconds() < policy.timeout:
        well = True
    if well is not None:
        post(HealthOk() if well else HealthMissed())
    _look_at_limits(child, post)
    # After a miss the next check follows as soon as this one's time is over: so it is known after interval +
    # failures x timeout at the latest that a child hangs.
    pause = policy.timeout if well is False else policy.interval
    await asyncio.sleep(max(0.0, began + pause - time.monotonic()))


async def is_healthy(
    child: Watched, session: aiohttp.ClientSession, post: Callable[[Event], None]
) -> bool | None:
    """One health check; None if there is no file descriptor to make it with.

    mlx_lm.server has /health, which must say 200; from another server any answer below 500 will do.
    """
    asking = _status(session, f"http://{HOST}:{child.port}/health", child.headers)
    try:
        status = await _in_time(child, asking, post)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return None if getattr(error, "errno", None) in {errno.EMFILE, errno.ENFILE} else False
    return status < 500 if child.foreign else status == 200


async def _status(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> int:
    limit = aiohttp.ClientTimeout()
    async with session.get(url, headers=headers, timeout=limit, allow_redirects=False) as response:
        return response.status


async def _in_time(child: Watched, asking: Coroutine[None, None, T], post: Callable[[Event], None]) -> T:
    """What `asking` returns. Raises TimeoutError after the seconds that a health check may take, if the child could
    have answered and the daemon could have heard it in that time.

    If the daemon itself was held up, an answer may lie there unread. So the time is counted in slices, and a slice
    that took too long counts once. A child that may have no thread to spare is waited for, and its limits are
    checked meanwhile. It is not asked again: checks that nobody waits for any more would fill its queue of
    connections, and the next request would find no place there.
    """
    task = asyncio.create_task(asking)
    busy = child.may_be_mute
    try:
        while True:
            seconds = child.profile().health.timeout
            for _ in range(SLICES):
                await clock.wait([task], seconds / SLICES)
                if task.done():
                    return task.result()
            was_busy, busy = busy, child.may_be_mute
            if not was_busy and not busy:
                raise TimeoutError
            _look_at_limits(child, post)
    finally:
        task.cancel()
        await asyncio.wait([task])


def _look_at_limits(child: Watched, post: Callable[[Event], None]) -> None:
    profile = child.profile()
    if profile.limits.memory and (child.memory() or 0) > profile.limits.memory:
        post(Unfit("memory", child.drain))
    if child.usage.silent_seconds() > profile.stall_timeout:
        post(Unfit("stalled"))
    if profile.idle_timeout and child.usage.idle_seconds() >= profile.idle_timeout:
        post(Stop(IDLE))


@asynccontextmanager
async def worker_session() -> AsyncIterator[aiohttp.ClientSession]:
    """For health checks: one connection per request, as mlx_lm.server closes each; no proxy, no cookies."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session
