"""Time limits while the machine sleeps: a loop whose clock goes on, and a monotonic clock that stands still."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

import draftd
from draftd import clock
from draftd.profile_tables import HealthPolicy
from draftd.profiles import Profile
from draftd.workers import health
from draftd.workers.events import BecameReady, Restart, Stop
from draftd.workers.states import Ready, Starting, Stopped, Stopping
from draftd.workers.usage import Usage
from draftd.workers.watched import Watched
from tests.workers.pretended import World, settle
from tests.workers.running import ready, running
from tests.workers.watching import serving

NIGHT = 8 * 3600.0
SHORT = 0.05
SOURCE = Path(draftd.__file__).parent
OURS_ALONE = re.compile(
    r"asyncio\.timeout\((?!None\))|\.timeout_at|wait_for\(|loop\.time\(|asyncio\.wait\([^)]*timeout="
)


class SleepyLoop(asyncio.SelectorEventLoop):
    """Its clock goes on while the machine sleeps, as uvloop's does on a Mac."""

    slept = 0.0

    def time(self) -> float:
        return super().time() + self.slept


def over_a_night(test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=SleepyLoop) as runner:
        runner.run(test)


async def sleep_a_night() -> None:
    """The machine sleeps, and on waking all that is due by the loop's clock has its turn."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SleepyLoop)
    loop.slept += NIGHT
    await settle()


@pytest.mark.fault(104)
def test_a_limit_outlasts_the_night_and_still_ends() -> None:
    async def test() -> None:
        over = asyncio.Event()

        async def block() -> None:
            async with clock.limit(SHORT):
                await sleep_a_night()
                assert not over.is_set()
                await asyncio.Event().wait()

        began = time.monotonic()
        timer = clock.Timer(SHORT, over.set)
        with pytest.raises(TimeoutError):
            await block()
        assert SHORT - clock.EARLY <= time.monotonic() - began < 5
        await over.wait()
        timer.cancel()

    over_a_night(test())


def test_what_ends_in_time_has_no_limit_any_more() -> None:
    async def test() -> None:
        async with clock.limit(SHORT):
            pass
        called: list[int] = []
        clock.Timer(0.0, lambda: called.append(1)).cancel()
        await asyncio.sleep(2 * SHORT)
        assert called == []
        with pytest.raises(KeyError):
            async with clock.limit(SHORT):
                raise KeyError

    over_a_night(test())


async def test_tasks_are_waited_for_until_the_first_or_all_have_ended_or_the_time_is_over() -> None:
    soon, never = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(asyncio.Event().wait())
    await clock.wait({soon, never}, 60, first=True)
    assert (soon.done(), never.done()) == (True, False)
    await clock.wait({soon, never}, SHORT)
    assert not never.cancelled()
    never.cancel()
    await clock.wait({soon, never}, 60)
    assert never.done()


@pytest.mark.fault(104)
def test_a_load_is_not_ended_when_the_machine_wakes() -> None:
    async def test() -> None:
        world = World()
        profile = Profile(name="a", model="m", health=HealthPolicy(start_timeout=900.0))
        async with running(world, profile) as (one,):
            assert isinstance(one.state, Starting)
            await sleep_a_night()
            assert isinstance(one.state, Starting)
            assert world.children[0].heard == []
            world.tell(BecameReady())
            await settle()
            assert isinstance(one.state, Ready)

    over_a_night(test())


@pytest.mark.fault(104)
def test_a_stopping_worker_is_not_killed_when_the_machine_wakes() -> None:
    async def test() -> None:
        world = World(stubborn=True, stop_grace=30.0)
        async with ready(world) as one:
            one.post(Stop())
            await settle()
            await sleep_a_night()
            assert isinstance(one.state, Stopping)
            assert world.children[0].heard == ["term"]
            world.children[0].end(0)
            await settle()
            assert isinstance(one.state, Stopped)

    over_a_night(test())


@pytest.mark.fault(104)
def test_a_draining_worker_still_has_its_time_when_the_machine_wakes() -> None:
    async def test() -> None:
        world = World()
        async with ready(world) as one, one.lease("a"):
            one.post(Restart("config", 30.0))
            await settle()
            await sleep_a_night()
            assert one.serves(0)
            assert world.children[0].heard == []

    over_a_night(test())


@pytest.mark.fault(104)
def test_health_is_not_judged_by_the_night() -> None:
    async def test() -> None:
        answer = asyncio.get_running_loop().create_future()

        async def asking() -> str:
            return str(await answer)

        profile = Profile(name="a", model="m", health=HealthPolicy(timeout=60.0))
        child = Watched(1, lambda: profile, Usage(), drain=7.0)
        asked = asyncio.create_task(health._in_time(child, asking(), lambda event: None))
        await settle()
        for _ in range(2 * health.SLICES):
            await sleep_a_night()
        answer.set_result("well")
        assert await asked == "well"

        usage = Usage()
        with serving(usage):
            await sleep_a_night()
            assert usage.silent_seconds() < 60
        assert usage.idle_seconds() < 60

    over_a_night(test())


def test_nothing_but_the_clock_sets_limits_by_the_loops_own_time() -> None:
    for path in SOURCE.rglob("*.py"):
        if path.name == "clock.py" or {"train", "group"}.intersection(path.parts):
            continue  # a group's launcher has asyncio's own loop, whose clock is time.monotonic
        with suppress(UnicodeDecodeError):
            assert not OURS_ALONE.search(path.read_text("utf-8")), path


def test_what_came_in_time_is_read_before_a_limit_that_fires_late() -> None:
    """On uvloop, whose timers come before what can be read."""

    async def ask() -> bytes:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            theirs.send(b"in time")
            asyncio.get_running_loop().call_soon(time.sleep, 2 * clock.LATE + SHORT)  # the loop is held up
            try:
                async with clock.limit(SHORT):
                    return await reader.read(7)
            finally:
                writer.close()

    assert uvloop.run(ask()) == b"in time"


def test_a_limit_that_fires_late_again_and_again_is_over_the_second_time() -> None:
    async def wait() -> float:
        loop, began = asyncio.get_running_loop(), time.monotonic()

        def hold_up() -> None:
            time.sleep(1.5 * clock.LATE)
            loop.call_soon(hold_up)

        loop.call_soon(hold_up)
        with pytest.raises(TimeoutError):
            async with clock.limit(SHORT):
                await asyncio.Event().wait()
        return time.monotonic() - began

    assert uvloop.run(wait()) < 20 * clock.LATE
