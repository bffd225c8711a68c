"""The supervisor: whose worker is whose, through reloads, and what is left at the end, with pretended children."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from draftd.errors import RequestError
from draftd.profiles import Profile
from draftd.workers.events import BecameReady
from draftd.workers.states import Failed, Ready, Starting, Stopped
from draftd.workers.supervisor import Supervisor
from tests.workers.pretended import NEVER, World, settle


def profile(name: str, model: str = "m", **fields: object) -> Profile:
    return Profile.model_validate({"name": name, "model": model, **fields})


def wanted(*profiles: Profile) -> dict[str, Profile]:
    return {one.name: one for one in profiles}


@asynccontextmanager
async def supervising(world: World, *profiles: Profile, share: bool = False) -> AsyncIterator[Supervisor]:
    with world.patched():
        async with asyncio.TaskGroup() as tasks:
            supervisor = Supervisor(world.services, tasks, share=share)
            supervisor.apply(wanted(*profiles))
            await settle()
            try:
                yield supervisor
            finally:
                async with asyncio.timeout(5):
                    await supervisor.close(drain=0.0)
                assert (world.alive, world.faults) == ([], [])


def pids(supervisor: Supervisor) -> dict[str, int | None]:
    return {row.name: row.pid for row in supervisor.snapshot()}


async def test_each_profile_has_a_worker_and_those_that_autostart_are_started() -> None:
    world = World(loads=9)
    asleep = profile("b", autostart=False)
    async with supervising(world, profile("c"), asleep, profile("a")) as supervisor:
        assert [(row.name, row.state) for row in supervisor.snapshot()] == [
            ("a", "starting"),
            ("b", "asleep"),
            ("c", "starting"),
        ]
        assert isinstance(supervisor.worker("b").state, Stopped)
        assert len(world.alive) == 2
        with pytest.raises(RequestError, match="no profile 'd'") as raised:
            supervisor.worker("d")
        assert (raised.value.status, raised.value.code) == (404, "profile_not_found")


async def test_a_reload_says_what_changed_and_replaces_only_those_children_that_must_be() -> None:
    world = World(loads=9)
    before = [profile("a"), profile("b"), profile("c"), profile("d")]
    async with supervising(world, *before) as supervisor:
        for child in world.watched:
            assert child.profile().name in "abcd"
        old = pids(supervisor)
        after = [
            profile("a"),
            profile("b", idle_timeout=60),
            profile("c", model="other"),
            profile("e"),
        ]
        assert supervisor.apply(wanted(*after)) == ["b", "c", "d", "e"]
        await settle()
        new = pids(supervisor)
        assert new.keys() == set("abce")
        assert (new["a"], new["b"]) == (old["a"], old["b"])
        assert new["c"] not in old.values()
        assert supervisor.worker("b").profile.idle_timeout == 60
        assert supervisor.apply(wanted(*after)) == []


async def test_a_removed_profile_is_forgotten_when_its_worker_has_ended_and_not_before() -> None:
    world = World(loads=9)
    async with supervising(world, profile("a"), profile("b")) as supervisor:
        removed = supervisor.worker("b")
        world.tell(BecameReady())  # the monitor of b
        await settle()
        async with removed.lease("b"):
            supervisor.apply(wanted(profile("a")))
            await settle()
            assert ("gone", "b") not in world.log
            assert len(world.alive) == 2
            with pytest.raises(RequestError):
                supervisor.worker("b")
        await settle()
        assert world.log.count(("gone", "b")) == 1
        assert len(world.alive) == 1
        assert ("gone", "a") not in world.log
        assert list(supervisor._running) == [supervisor.worker("a")]


async def test_a_profile_that_is_removed_and_comes_back_meanwhile_is_not_forgotten() -> None:
    world = World(loads=9)
    async with supervising(world, profile("a")) as supervisor:
        world.tell(BecameReady())
        await settle()
        async with supervisor.worker("a").lease("a"):
            supervisor.apply({})
            supervisor.apply(wanted(profile("a")))
        await settle()
        assert ("gone", "a") not in world.log
        assert len(world.alive) == 1


async def test_profiles_that_leave_a_shared_worker_are_forgotten_at_once() -> None:
    world = World()
    async with supervising(world, profile("a"), profile("b"), share=True) as supervisor:
        assert len(world.alive) == 1
        assert supervisor.worker("a") is supervisor.worker("b")
        assert (supervisor.shares_with("a"), supervisor.shares_with("b")) == (("b",), ("a",))
        assert [(row.name, row.worker) for row in supervisor.snapshot()] == [("a", "a"), ("b", "a")]
        supervisor.apply(wanted(profile("a")))
        assert ("gone", "b") in world.log
        assert supervisor.shares_with("a") == ()


async def test_a_worker_goes_on_under_another_name_when_its_host_leaves() -> None:
    world = World()
    async with supervising(world, profile("a"), profile("b"), share=True) as supervisor:
        worker = supervisor.worker("a")
        old = pids(supervisor)
        supervisor.apply(wanted(profile("b")))
        await settle()
        assert supervisor.worker("b") is worker
        assert (worker.name, worker.profile.name) == ("b", "b")
        assert pids(supervisor) == {"b": old["b"]}
        assert supervisor.whose("b", "a") == "a"  # a request of a may still be on its way
        assert supervisor.whose("b", "c") == "b"
        assert supervisor.whose("b", None) == "b"
        assert supervisor.whose("no such worker", "a") == "no such worker"


async def test_what_an_engine_says_reaches_its_worker_and_words_of_others_nobody() -> None:
    world = World(loads=9)
    async with supervising(world, profile("a"), profile("b")) as supervisor:
        supervisor.engine_started("a", accounting=True)
        supervisor.engine_started("gone", accounting=True)
        supervisor.progress("b", 10**12)
        supervisor.progress("gone", 1)
        rows = {row.name: row for row in supervisor.snapshot()}
        assert (rows["a"].accounting, rows["b"].accounting) == (True, False)
        supervisor.progress("b", None)
        told = {name: supervisor.worker(name).watched for name in "ab"}
        assert {name: one.told_memory for name, one in told.items() if one} == {"a": 0, "b": 10**12}


async def test_the_end_waits_for_open_requests_as_long_as_it_is_told() -> None:
    world = World()
    async with supervising(world, profile("a")) as supervisor:
        world.tell(BecameReady())
        await settle()
        async with supervisor.worker("a").lease("a"):
            ending = asyncio.create_task(supervisor.close(drain=NEVER))
            await settle()
            assert not ending.done()
            assert not isinstance(supervisor.worker("a").state, Ready | Starting | Failed)
            assert len(world.alive) == 1
        await ending


async def test_without_a_worker_the_end_is_there_at_once() -> None:
    async with supervising(World()) as supervisor:
        assert supervisor.snapshot() == []
