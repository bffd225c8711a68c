"""Every request that waits for a worker is answered exactly once, whatever happens to the worker.

The real Worker, its inbox and its state machine, with pretended children: hypothesis makes up the history, a step
at a time, and after each step the loop runs until nothing moves any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from draftd.errors import WorkerError
from draftd.profile_tables import RestartPolicy
from draftd.profiles import Profile
from draftd.workers.events import (
    BecameReady,
    Close,
    Event,
    HealthMissed,
    Reconfigure,
    Restart,
    Start,
    Stop,
    Unfit,
)
from draftd.workers.states import Draining, Failed, Queued, Ready, Starting, Stopped, Stopping
from draftd.workers.worker import Worker
from tests.workers.pretended import AT_ONCE, NEVER, World, settle

EVENTS: dict[str, Event] = {
    "missed": HealthMissed(),
    "stalled": Unfit("stalled"),
    "memory": Unfit("memory", drain=NEVER),
    "start": Start(),
    "stop": Stop(),
    "restart": Restart("operator"),
    "drain": Restart("operator", drain=NEVER),
}
FROM_MONITOR = {"missed": Ready | Draining, "stalled": Ready | Draining, "memory": Ready | Draining}
OFTEN = ["ask"] * 5 + ["ready"] * 5 + ["exit", "done", "start"]  # else few histories come far
STEPS = [*OFTEN, "leave", "exit", "done", "reconfigure", *EVENTS]


@dataclass(eq=False)
class Waiter:
    """A request. In the end `answers` has one entry."""

    answers: list[str] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, worker: Worker) -> None:
        try:
            async with worker.lease("a"):
                self.answers.append("lease")
                assert isinstance(worker.state, Ready)
                await self.done.wait()
        except WorkerError:
            self.answers.append("refused")
        except asyncio.CancelledError:
            if not self.answers:
                self.answers.append("left")
            raise


class History:
    """One worker and its requests."""

    def __init__(self, world: World, profile: Profile, tasks: asyncio.TaskGroup) -> None:
        self.world = world
        self.worker = Worker(profile, world.services)
        self.waiters: dict[Waiter, asyncio.Task[None]] = {}
        self._tasks = tasks

    async def take(self, step: str, which: int) -> None:
        """One step, and all that follows from it."""
        unanswered = [waiter for waiter in self.waiters if not waiter.answers]
        holding = [waiter for waiter in self.waiters if waiter.answers == ["lease"]]
        if step == "ask":
            waiter = Waiter()
            self.waiters[waiter] = self._tasks.create_task(waiter.wait(self.worker))
        elif step == "leave" and (there := unanswered + holding):
            self.waiters[there[which % len(there)]].cancel()
        elif step == "done" and holding:
            holding[which % len(holding)].done.set()
        elif step == "ready" and isinstance(self.worker.state, Starting):
            self.world.tell(BecameReady())
        elif step == "exit" and self.world.alive:
            self.world.alive[0].end()
        elif step == "reconfigure":
            self.worker.post(Reconfigure(self.worker.profile, restart=True))
        elif step in FROM_MONITOR and isinstance(self.worker.state, FROM_MONITOR[step]):
            self.world.tell(EVENTS[step])
        elif step in EVENTS and step not in FROM_MONITOR:
            self.worker.post(EVENTS[step])
        await settle()
        self.check()

    def check(self) -> None:
        """No request waits where an answer is due, the worker counts right, and it has not stopped early."""
        unanswered = sum(not waiter.answers for waiter in self.waiters)
        state, usage = self.worker.state, self.worker._usage
        assert max((len(waiter.answers) for waiter in self.waiters), default=0) <= 1
        assert usage.waiting == unanswered
        assert usage.open == sum(
            waiter.answers == ["lease"] and not task.done() for waiter, task in self.waiters.items()
        )
        if isinstance(state, Ready | Failed | Stopped):
            assert unanswered == 0
        assert not isinstance(state, Queued | Stopping)
        assert len(self.world.alive) == isinstance(state, Starting | Ready | Draining)
        assert self.world.gate.idle is not isinstance(state, Starting)
        assert len(self.world.watched) == len(self.world.alive)
        assert not isinstance(state, Draining) or usage.open


async def tell(steps: Sequence[tuple[str, int]], world: World, restart: RestartPolicy) -> list[Waiter]:
    """Live through the history, then close the worker; the requests of it."""
    profile = Profile(name="a", model="m", restart=restart)
    async with asyncio.TaskGroup() as tasks:
        history = History(world, profile, tasks)
        running = tasks.create_task(history.worker.run())
        for step, which in steps:
            await history.take(step, which)
        for waiter in history.waiters:
            waiter.done.set()
        history.worker.post(Close(drain=0))
        async with asyncio.timeout(5):
            await running
            await asyncio.wait([*history.waiters.values(), running])
    assert (world.alive, world.watched, world.gate.idle, world.faults) == ([], [], True, [])
    assert all(child.heard[-2:] == ["kill", "close"] for child in world.children)
    return list(history.waiters)


@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), min_size=15, max_size=40),
    stubborn=st.booleans(),
    spawns=st.sampled_from([True, True, True, False]),
    delay=st.sampled_from([AT_ONCE, 5.0, NEVER]),
    most=st.integers(1, 4),
)
def test_every_waiter_is_answered_exactly_once(
    steps: list[tuple[str, int]], stubborn: bool, spawns: bool, delay: float, most: int
) -> None:
    restart = RestartPolicy(initial_delay=delay, max_delay=delay, stable_delay=AT_ONCE, max_failures=most)
    world = World(stubborn=stubborn, spawns=spawns)
    with world.patched():
        waiters = asyncio.run(tell(steps, world, restart))
    assert [len(waiter.answers) for waiter in waiters] == [1] * len(waiters)
