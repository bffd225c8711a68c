"""The monitor of a child that serves: when it is healthy, and when it exceeds a limit. The test is the child."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from draftd.profile_tables import HealthPolicy, Limits
from draftd.profiles import Profile
from draftd.workers.events import IDLE, BecameReady, HealthMissed, HealthOk, Stop, Unfit
from draftd.workers.health import is_healthy
from draftd.workers.usage import Usage
from draftd.workers.watched import Watched
from tests.workers.watching import FOREIGN, LIMIT, OFTEN, PROFILE, Bench, serving


@pytest.mark.parametrize(
    ("status", "profile", "well"),
    [
        (200, PROFILE, True),
        (404, PROFILE, False),
        (500, PROFILE, False),
        (404, FOREIGN, True),
        (500, FOREIGN, False),
    ],
)
async def test_a_check_goes_by_the_status_and_is_strict_with_our_engine(
    bench: Bench, status: int, profile: Profile, well: bool
) -> None:
    bench.server.health = status
    async with bench.watching(profile):
        assert await bench.next() == BecameReady()
        assert await bench.next() == (HealthOk() if well else HealthMissed())


async def test_no_answer_in_time_is_a_miss_and_the_next_check_follows_at_once(bench: Bench) -> None:
    rare = PROFILE.model_copy(update={"health": HealthPolicy(interval=LIMIT, timeout=0.1)})
    bench.server.hangs.clear()
    async with bench.watching(rare):
        assert [await bench.next() for _ in range(4)] == [BecameReady()] + [HealthMissed()] * 3
    one, two, three, *_ = bench.server.checks
    assert 0.05 < two - one < LIMIT / 2
    assert 0.05 < three - two < LIMIT / 2


@pytest.mark.fault(74)
async def test_health_is_not_judged_by_a_clock_that_the_daemon_itself_stopped(bench: Bench) -> None:
    bench.server.holds_up = OFTEN.timeout * 2
    async with bench.watching():
        assert [await bench.next() for _ in range(3)] == [BecameReady(), HealthOk(), HealthOk()]


async def test_misses_that_come_quickly_are_no_quicker_a_reason_to_restart(bench: Bench) -> None:
    profile = PROFILE.model_copy(update={"health": HealthPolicy(interval=LIMIT, timeout=0.3)})
    bench.server.health = 500
    async with bench.watching(profile):
        assert [await bench.next() for _ in range(3)] == [BecameReady(), HealthMissed(), HealthMissed()]
    one, two, *_ = bench.server.checks
    assert two - one > 0.15  # as they arrive: the first one may come late


@pytest.mark.fault(26)
async def test_health_is_not_judged_without_a_descriptor_to_ask_with(bench: Bench) -> None:
    bench.server.health = 500
    async with bench.watching():
        await bench.until(HealthMissed())
        await asyncio.sleep(0.05)  # its connection is closed
        with scarce():
            await asyncio.sleep(0.5)
            assert bench.events.empty()
        await bench.until(HealthMissed())


@contextmanager
def scarce() -> Iterator[None]:
    """Leave this process without a free descriptor for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds(), hard))
    held = []
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_refused_connection_is_a_miss(bench: Bench) -> None:
    usage = Usage()
    nowhere = Watched(1, lambda: FOREIGN, usage, drain=7.0)
    assert await is_healthy(nowhere, bench.session, bench.events.put_nowait) is False
    with serving(usage):
        assert await is_healthy(nowhere, bench.session, bench.events.put_nowait) is False


async def test_after_an_answer_the_next_check_waits_for_the_interval(bench: Bench) -> None:
    slow = PROFILE.model_copy(update={"health": HealthPolicy(interval=0.3, timeout=0.1)})
    async with bench.watching(slow):
        assert [await bench.next() for _ in range(3)] == [BecameReady(), HealthOk(), HealthOk()]
    one, two = bench.server.checks
    assert two - one > 0.15  # as they arrive: the first one may come late


async def test_a_child_that_is_too_busy_to_answer_is_well_while_it_generates(bench: Bench) -> None:
    bench.server.hangs.clear()
    async with bench.watching():
        assert [await bench.next(), await bench.next()] == [BecameReady(), HealthMissed()]
        with serving(bench.usage):
            generating = asyncio.create_task(_generate(bench.usage))
            await bench.until(HealthOk())
            generating.cancel()
            bench.usage._progress = time.monotonic() - LIMIT  # the request is still open
            await bench.until(HealthMissed())
            assert await bench.next() == HealthMissed()
        bench.usage.progress()  # but no request is open
        await bench.until(HealthMissed())
        assert await bench.next() == HealthMissed()


async def test_another_server_need_not_answer_while_it_works_on_a_request(bench: Bench) -> None:
    bench.server.hangs.clear()
    async with bench.watching(FOREIGN):
        with serving(bench.usage):
            bench.usage._progress = time.monotonic() - LIMIT  # nothing comes of an answer until it is whole
            assert await bench.next() == BecameReady()
            await asyncio.sleep(OFTEN.timeout * 5)
            assert bench.events.empty()
            assert len(bench.server.checks) == 1  # the others would have filled its queue
            bench.server.hangs.set()
            assert await bench.next() == HealthOk()
            bench.server.hangs.clear()
        await bench.until(HealthMissed())


async def test_another_server_that_works_for_too_long_is_a_stall_though_it_is_mute(bench: Bench) -> None:
    bench.server.hangs.clear()
    async with bench.watching(FOREIGN):
        with serving(bench.usage):
            assert await bench.next() == BecameReady()
            bench.usage._progress = time.monotonic() - FOREIGN.stall_timeout - 1
            assert await bench.next() == Unfit("stalled")


async def _generate(usage: Usage) -> None:
    while True:
        usage.progress()
        await asyncio.sleep(0.01)


# --- limits ---------------------------------------------------------------------------------------------------


async def test_a_child_over_its_memory_is_unfit_but_may_finish(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int | None] = [1000]
    monkeypatch.setattr(Watched, "memory", lambda self: used[0])
    limited = PROFILE.model_copy(update={"limits": Limits.model_validate({"memory": "1KB"})})
    async with bench.watching(limited):
        for used[0] in (1000, None):
            await bench.until(HealthOk())
            assert await bench.next() == HealthOk()
        used[0] = 1001
        await bench.until(Unfit("memory", 7.0))


async def test_an_open_request_without_progress_is_a_stall(bench: Bench) -> None:
    assert PROFILE.stall_timeout == 120.0
    async with bench.watching():
        with serving(bench.usage):
            bench.usage._progress = time.monotonic() - 110.0
            await bench.until(HealthOk())
            assert await bench.next() == HealthOk()
            bench.usage._progress = time.monotonic() - 121.0
            await bench.until(Unfit("stalled"))


@pytest.mark.parametrize("idle_timeout", [0, 60])
async def test_an_idle_child_is_stopped_if_its_profile_says_so(bench: Bench, idle_timeout: float) -> None:
    profile = PROFILE.model_copy(update={"idle_timeout": idle_timeout})
    async with bench.watching(profile):
        bench.usage._last = time.monotonic() - 40.0
        await bench.until(HealthOk())
        assert await bench.next() == HealthOk()
        bench.usage._last = time.monotonic() - 61.0
        await bench.until(HealthOk())
        await bench.until(Stop(IDLE) if idle_timeout else HealthOk())
