"""A worker's child and its monitor: its port, its output, its memory, and whose words count."""

from __future__ import annotations

import asyncio

import pytest

from draftd import first_start
from draftd.profile_tables import HealthPolicy
from draftd.workers import children as module
from draftd.workers import memory
from draftd.workers.events import BecameReady, HealthMissed, Reconfigure, Start, Stop
from draftd.workers.states import Starting
from draftd.workers.worker import Worker
from tests.workers.pretended import NEVER, World, settle
from tests.workers.running import PROFILE, ready, running


async def test_a_worker_that_is_cancelled_leaves_no_child_and_keeps_neither_place_nor_port() -> None:
    world = World()
    with world.patched():
        one = Worker(PROFILE.model_copy(update={"port": 9000}), world.services)
        task = asyncio.create_task(one.run())
        one.post(Start())
        await settle()
        assert not world.gate.idle
        task.cancel()
        await asyncio.wait([task])
    assert world.children[0].heard == ["kill", "close"]
    assert world.gate.idle
    assert world.ports.take("another")[0] == 8000
    world.ports.reserve("a third", 9000)
    assert world.ports.take("a third")[0] == 9000


async def test_a_fixed_port_is_kept_for_the_worker_from_the_start_and_from_a_reload_on() -> None:
    world = World()
    Worker(PROFILE.model_copy(update={"port": 8000}), world.services)
    assert world.ports.take("another")[0] == 8001
    async with running(world, PROFILE.model_copy(update={"port": 8003})) as (one,):
        one.post(Reconfigure(PROFILE.model_copy(update={"port": 8002}), restart=False))
        await settle()
        assert [world.ports.take(name)[0] for name in "xy"] == [8004, 8005]
        assert one.profile.port == 8002
        assert len(world.children) == 1


async def test_the_holders_of_ports_that_were_skipped_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "holders_of", lambda port: f"held: {port}")
    world = World()
    world.busy = {8000, 8001}
    async with running(world) as (one,), asyncio.timeout(5):
        while not world.watched:  # noqa: ASYNC110 - who holds them is found out in a thread
            await asyncio.sleep(0.001)
        world.tell(BecameReady())
        await settle()
        assert one.status().notes == ("held: 8000", "held: 8001")
        assert one.status().port == 8002
        async with one.lease("a") as lease:
            assert lease.port == 8002


async def test_what_a_child_says_is_handed_on_under_the_workers_name() -> None:
    world = World()
    async with ready(world) as one:
        one.name = "b"  # as the supervisor does when the profiles are shared in another way
        world.alive[0].on_output(b"chunk")
        assert world.watched[0].output == len(b"chunk")
    assert ("output", "b", b"chunk") in world.log


async def test_what_an_earlier_child_or_its_monitor_said_is_void() -> None:
    world = World()
    async with ready(world) as one:
        said, child = world.tell, world.alive[0]
        child.exit_code = 1
        child.on_exit()
        said(HealthMissed())  # in the inbox behind the exit
        await settle()
        child.on_exit()
        said(BecameReady())
        await settle()
        assert isinstance(one.state, Starting)
        assert len(world.children) == 2


async def test_a_monitor_ends_with_its_child_and_sees_the_profile_of_the_day() -> None:
    world = World()
    async with ready(world) as one:
        (watched,) = world.watched
        assert (watched.pid, watched.port, watched.drain) == (1, 8000, NEVER)
        assert watched.usage.open == 0
        later = PROFILE.model_copy(update={"health": HealthPolicy(failures=9)})
        one.post(Reconfigure(later, restart=False))
        await settle()
        assert watched.profile() == later
        world.alive[0].end()
        await settle()
        assert [one.pid for one in world.watched] == [2]


async def test_memory_is_the_process_or_what_the_engine_says_if_that_is_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "footprint", lambda pid, family: 1000 * pid)
    world = World()
    async with ready(world) as one:
        (watched,) = world.watched
        assert one.status().memory_bytes == watched.memory() == 1000
        watched.told_memory = 5000
        assert one.status().memory_bytes == watched.memory() == 5000
        world.alive[0].end()
        await settle()
        assert one.status().memory_bytes == 2000  # the next child has said nothing yet


async def test_what_an_engine_says_is_about_its_own_child() -> None:
    world = World()
    async with ready(world) as one:
        assert not one.status().accounting
        assert one.watched is world.watched[0]
        one.watched.accounting = True
        assert one.status().accounting
        world.alive[0].end()
        await settle()
        assert not one.status().accounting


async def test_the_progress_of_an_answer_is_progress_of_the_child() -> None:
    world = World()
    async with ready(world) as one, one.lease("a") as lease:
        usage = world.watched[0].usage
        usage._progress = 0.0
        lease.progress()
        assert usage.silent_seconds() < 5


@pytest.mark.fault(102)
async def test_workers_share_the_memory_and_what_an_ended_one_had_is_told_to_who_had_too_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(first_start, "weights_here", lambda profile, environ: 5 * 10**9)
    world = World(loads=3)  # its workers may take 10 GB
    foreign = PROFILE.model_copy(update={"name": "c", "command": ("server", "{port}")})
    profiles = (PROFILE, PROFILE.model_copy(update={"name": "b"}), foreign)
    async with running(world, *profiles) as workers:
        first, second, third = world.children
        [had] = first.shares
        [has] = second.shares
        assert had.wired > 5 * 10**9
        assert had.wired + has.wired == 10 * 10**9
        assert third.shares == []
        workers[0].post(Stop())
        await settle()
        assert second.shares[1:] == [had]
        workers[1].post(Stop())
        await settle()
        assert world.services.memory.left == 10 * 10**9
