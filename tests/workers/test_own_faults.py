"""Faults of our own: a worker logs them and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from draftd.profile_tables import RestartPolicy
from draftd.profiles import Profile
from draftd.workers.events import BecameReady, Close, Start
from draftd.workers.worker import Worker
from tests.workers.pretended import World, settle
from tests.workers.running import PROFILE, lease, states


def faulty(world: World, *parts: str) -> World:
    """A world in which the given parts of the daemon raise what nobody expects."""

    def fails(*_: object) -> Any:
        raise ZeroDivisionError(parts)

    changes: dict[str, Any] = dict.fromkeys(parts, fails)
    world.services = replace(world.services, **changes)
    return world


@pytest.mark.fault(56)
async def test_a_fault_in_what_a_worker_tells_is_logged_and_the_worker_goes_on() -> None:
    world = faulty(World(), "on_restart", "on_change", "tail")
    async with pretending(world) as one:
        world.tell(BecameReady())
        await settle()
        waiting = asyncio.create_task(lease(one))
        await settle()
        assert waiting.done()
        world.alive[0].end()
        await settle()
        assert [
            state for state in states([one]) if state != "Starting"
        ] == []  # backoff, queue and spawn are over
        last = one.status().last_exit
        assert last is not None
        assert (last.code, last.lines) == (-9, ())
        world.tell(BecameReady())
        await settle()
        assert await lease(one) == "served"
    assert all(isinstance(fault, ZeroDivisionError) for fault in world.faults)
    assert len(world.faults) > 5


@pytest.mark.fault(56)
async def test_an_event_that_cannot_happen_is_logged_and_changes_nothing() -> None:
    world = World()
    async with pretending(world) as one:
        world.tell(BecameReady())
        world.tell(BecameReady())
        await settle()
        assert states([one]) == ["Ready"]
        assert await lease(one) == "served"
    assert [type(fault).__name__ for fault in world.faults] == ["IllegalTransitionError"]


@pytest.mark.fault(56)
@pytest.mark.parametrize("error", [ValueError("embedded null byte"), OSError(24, "Too many open files")])
async def test_a_child_that_cannot_be_started_is_a_failure_whatever_the_reason(error: Exception) -> None:
    world = World()

    def fails() -> None:
        raise error

    world.meanwhile = fails
    policy = PROFILE.model_copy(update={"restart": RestartPolicy(max_failures=1)})
    async with pretending(world, policy) as one:
        assert states([one]) == ["Failed"]
        assert str(error) in str(one.status().last_exit)
        assert world.gate.idle
        world.meanwhile = lambda: None
        one.post(Start())
        await settle()
        assert states([one]) == ["Starting"]
    assert world.faults == ([] if isinstance(error, OSError) else [error])


@asynccontextmanager
async def pretending(world: World, profile: Profile = PROFILE) -> AsyncIterator[Worker]:
    """One started worker, whatever its faults."""
    with world.patched():
        async with asyncio.TaskGroup() as tasks:
            one = Worker(profile, world.services)
            tasks.create_task(one.run())
            one.post(Start())
            await settle()
            yield one
            one.post(Close(0.0))
