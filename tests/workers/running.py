"""Real workers in a pretended world, started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from draftd.errors import WorkerError
from draftd.profile_tables import RestartPolicy
from draftd.profiles import Profile
from draftd.workers.events import BecameReady, Close, Start
from draftd.workers.worker import Worker
from tests.workers.pretended import AT_ONCE, World, settle

AGAIN_AT_ONCE = RestartPolicy(initial_delay=AT_ONCE, max_delay=AT_ONCE, stable_delay=AT_ONCE)
PROFILE = Profile(name="a", model="m", restart=AGAIN_AT_ONCE)


@asynccontextmanager
async def running(world: World, *profiles: Profile, start: bool = True) -> AsyncIterator[list[Worker]]:
    """Workers of these profiles (of PROFILE by default), started, with their first children loading if they may."""
    with world.patched():
        async with asyncio.TaskGroup() as tasks:
            workers = [Worker(profile, world.services) for profile in profiles or (PROFILE,)]
            for one in workers:
                tasks.create_task(one.run())
                if start:
                    one.post(Start())
            await settle()
            try:
                yield workers
            finally:
                for one in workers:
                    one.post(Close(0.0))
    assert world.faults == []


@asynccontextmanager
async def ready(world: World, profile: Profile = PROFILE) -> AsyncIterator[Worker]:
    """One worker whose child is ready."""
    async with running(world, profile) as (one,):
        world.tell(BecameReady())
        await settle()
        yield one


def states(workers: Iterable[Worker]) -> list[str]:
    return [type(one.state).__name__ for one in workers]


async def lease(one: Worker) -> str:
    try:
        async with one.lease("a"):
            return "served"
    except WorkerError:
        return "refused"
