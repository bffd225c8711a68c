"""What a worker does besides its states: places, ports, monitors, exits, last words. Its children are pretended."""

from __future__ import annotations

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from draftd.profile_tables import RestartPolicy
from draftd.workers.events import IDLE, BecameReady, HealthMissed, LoadStuck, Restart, Start, Stop
from draftd.workers.states import Starting, Stopped
from draftd.workers.worker import Worker
from tests.workers.pretended import AT_ONCE, NEVER, World, settle
from tests.workers.running import PROFILE, lease, ready, running, states


async def test_a_place_to_load_is_given_back_when_the_child_is_ready_or_gone() -> None:
    world = World()
    profiles = [PROFILE.model_copy(update={"name": name}) for name in "abc"]
    async with running(world, *profiles) as workers:
        assert states(workers) == ["Starting", "Queued", "Queued"]
        world.tell(BecameReady())
        await settle()
        assert states(workers) == ["Ready", "Starting", "Queued"]
        world.alive[-1].end()
        await settle()
        assert isinstance(workers[2].state, Starting)
        workers[2].post(Stop())
        await settle()
        assert states(workers) == ["Ready", "Starting", "Stopped"]
        world.tell(BecameReady())
        await settle()
        assert world.gate.idle


async def test_a_place_that_was_granted_to_an_order_since_undone_is_given_to_nobody_twice() -> None:
    world = World(loads=1)
    async with running(world) as (one,):
        one.post(Stop())
        await settle()
        world.gate.acquire("another", lambda: None)
        one.post(Start())
        await settle()
        assert states([one]) == ["Queued"]
        one.post(Stop())
        one.post(Start())
        world.gate.release("another")  # the grant is in the inbox, behind these orders
        await settle()
        assert states([one]) == ["Starting"]
        assert len(world.alive) == 1


@pytest.mark.fault(57)
async def test_a_load_that_is_stuck_gives_its_place_to_the_next_and_may_still_get_ready() -> None:
    world = World()
    async with running(world, PROFILE, PROFILE.model_copy(update={"name": "b"})) as workers:
        world.tell(LoadStuck())
        stuck = world.tell
        await settle()
        assert states(workers) == ["Starting", "Starting"]
        stuck(BecameReady())
        world.tell(BecameReady())
        await settle()
        assert states(workers) == ["Ready", "Ready"]
        assert world.gate.idle


async def test_restarts_are_counted_with_their_reason_and_every_change_is_told() -> None:
    world = World()
    async with ready(world) as one:
        assert world.log.count(("change",)) == 3  # queued, starting, ready
        world.tell(HealthMissed())
        await settle()
        assert world.log.count(("change",)) == 3  # still ready
        world.alive[0].end()
        await settle()
        world.tell(BecameReady())
        one.post(Restart("operator"))
        await settle()
        assert [entry for entry in world.log if entry[0] == "restart"] == [
            ("restart", "a", "exit"),
            ("restart", "a", "operator"),
        ]
        assert one.status().restarts == 2


async def test_a_stop_for_lack_of_requests_is_dropped_if_one_has_come() -> None:
    world = World()
    async with ready(world) as one:
        async with one.lease("a"):
            world.tell(Stop(IDLE))
            await settle()
            assert states([one]) == ["Ready"]
        world.watched[0].usage._last = 0.0
        world.tell(Stop(IDLE))
        await settle()
        assert isinstance(one.state, Stopped)
        assert one.state.on_demand


async def test_how_long_a_start_took_is_known_when_it_is_over() -> None:
    world = World()
    async with running(world) as (one,):
        assert one.status().start_seconds is None
        world.tell(BecameReady())
        await settle()
        taken = one.status().start_seconds
        assert taken is not None
        assert 0 <= taken < 5


async def test_a_stop_that_comes_while_a_child_cannot_be_started_is_heard() -> None:
    world = World(spawns=False)
    async with running(world) as (one,):
        world.meanwhile = lambda: one.post(Stop())
        await settle()
        one.post(Start())
        await settle()
        assert states([one]) == ["Stopped"]
        assert world.gate.idle


async def test_a_child_is_asked_to_end_before_it_is_killed() -> None:
    world = World()
    async with ready(world) as one:
        one.post(Stop())
        await settle()
        assert world.children[0].heard[0] == "term"


async def test_a_request_wakes_a_worker_that_sleeps_and_waits_for_one_start_only() -> None:
    world = World()
    profile = PROFILE.model_copy(update={"restart": RestartPolicy(initial_delay=5, max_delay=5)})
    async with ready(world, profile) as one:
        world.watched[0].usage._last = 0.0
        world.tell(Stop(IDLE))
        await settle()
        assert world.alive == []
        waiting = asyncio.create_task(lease(one))
        await settle()
        assert states([one]) == ["Starting"]
        world.alive[0].end()
        await settle()
        assert (states([one]), await waiting) == (["Backoff"], "refused")
        later = asyncio.create_task(lease(one))  # has seen no start yet, and the delay is short
        await settle()
        assert not later.done()
        one.post(Start())
        await settle()
        world.tell(BecameReady())
        assert await later == "served"


async def test_a_worker_that_was_never_started_has_a_status() -> None:
    status = Worker(PROFILE, World().services).status()
    assert (status.state, status.pid, status.notes, status.restarts) == ("asleep", None, (), 0)
    assert abs(status.since - time.time()) < 60


async def test_changes_are_logged_bad_ones_as_warnings() -> None:
    world = World()
    with capture_logs() as logs:
        async with ready(world, PROFILE.model_copy(update={"restart": RestartPolicy(max_failures=1)})):
            world.alive[0].end()
            await settle()
    told = [(entry["event"], entry["log_level"], entry["because"]) for entry in logs]
    assert told[:4] == [
        ("worker waiting", "debug", "Start"),  # it has its turn at once
        ("worker starting", "info", "LoadGranted"),
        ("worker ready", "info", "BecameReady"),
        ("worker failed", "warning", "exit"),
    ]


async def test_a_change_is_waited_for_no_longer_than_asked() -> None:
    world = World()
    async with ready(world) as one:
        async with asyncio.timeout(5):
            await one.until_changed(AT_ONCE)
            waiting = asyncio.create_task(one.until_changed(NEVER))
            await settle()
            assert not waiting.done()
            one.post(Stop())
            await waiting


async def test_the_state_is_told_with_the_time_since_when_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with ready(world) as one:
        since = one.status().since
        one.post(Stop())
        await settle()
        assert one.status().since > since
        assert one.status().state == "stopped"
