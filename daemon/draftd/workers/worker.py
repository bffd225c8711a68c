"""One worker: a task with an inbox that feeds the state machine and performs its effects.

Theory of operation. Everything that can change the worker arrives in its inbox and is handled by `run`, one
message at a time; nobody else touches the state, so no lock guards it. What is said about a child carries that
child's number, and is dropped once there is another child; the same holds for a load slot and its ticket. An
exception that nobody foresaw ends what it interrupted, but neither the worker nor its neighbours: see `contained`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager, suppress
from random import random
from typing import assert_never

import structlog

from draftd import clock
from draftd.profiles import Profile
from draftd.workers import machine
from draftd.workers.children import Children
from draftd.workers.events import (
    PRESSURE,
    ROOM,
    SLEEP,
    BecameReady,
    Close,
    Drained,
    Event,
    Exited,
    FromChild,
    Granted,
    HealthOk,
    LoadGranted,
    Message,
    Reconfigure,
    Restart,
    Start,
    Stop,
    TimerDue,
)
from draftd.workers.leasing import Leasing
from draftd.workers.outlook import Outlook
from draftd.workers.process import contained
from draftd.workers.room import Standing
from draftd.workers.services import Services
from draftd.workers.states import (
    CountRestart,
    Draining,
    Effect,
    Queued,
    Ready,
    Starting,
    State,
    Stopped,
    Stopping,
)
from draftd.workers.status import WorkerStatus
from draftd.workers.transitions import Policy
from draftd.workers.usage import Lease, Usage
from draftd.workers.watched import Watched

log = structlog.get_logger("worker")

MEASURE = 10.0  # seconds between looks at how large a worker is


class Worker:
    """See the module's docstring. All methods are for the event loop's thread."""

    def __init__(self, profile: Profile, services: Services) -> None:
        self.profile = profile
        self.profiles: tuple[str, ...] = (profile.name,)  # those that it serves; the supervisor sets them
        self.name = profile.name  # in its log and its messages; the supervisor may change it
        self.state: State = Stopped(time.monotonic())
        self._services = services
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._closing = False
        self._usage = Usage()
        self._children = Children(self, services, self._usage)
        self.ticket = object()  # what it holds a load slot with, or waits for one
        self._wanted = False  # by a person who has told it to start
        self._measured_at = 0.0
        self._leasing = Leasing(self, services, self._usage, self._children)
        self._outlook = Outlook(self, services, self._usage, self._children)
        services.ports.reserve(self, profile.port)

    @property
    def watched(self) -> Watched | None:
        """What is known of the child that there is, or of the one that is being started."""
        return self._children.watched

    def post(self, message: Message) -> None:
        """Put an order into the inbox."""
        self._inbox.put_nowait(message)

    def lease(self, name: str) -> AbstractAsyncContextManager[Lease]:
        """A ready child for one request to the profile `name`: see Leasing."""
        return self._leasing.lease(name)

    async def until_changed(self, limit: float) -> None:
        """Return at the next change of state, or after `limit` seconds."""
        with suppress(TimeoutError):
            async with clock.limit(limit):
                await self._changed.wait()

    @property
    def start_seconds(self) -> float | None:
        """How long the last start took until ready; None before the first."""
        return self._outlook.start_seconds

    def serves(self, child: int) -> bool:
        """Whether the child with this number lives, and has not been told to end."""
        return self._children.number == child and isinstance(self.state, Ready | Draining)

    @property
    def waiting(self) -> int:
        """Requests that wait until the worker is ready."""
        return self._usage.waiting

    def status(self) -> WorkerStatus:
        """The worker now."""
        return self._outlook.status()

    # --- room in memory ------------------------------------------------------------------------------------

    def standing(self) -> Standing:
        """How the worker is now, for whoever decides who makes room. See `Tenant`."""
        now = time.monotonic()
        return Standing(
            busy=self._usage.busy or isinstance(self.state, Queued | Starting),
            leaving=isinstance(self.state, Draining | Stopping),
            wanted=self._is_needed(),
            pinned=self.profile.pin,
            since=self.state.since if isinstance(self.state, Ready) else now,
            last_used=now - self._usage.idle_seconds(),
        )

    def _is_needed(self) -> bool:
        # The room's reason to decline a worker and our reason to stay must be the same: else they never agree.
        return self._wanted or self._usage.busy

    def enter(self) -> None:
        """There is room: wait for a place among those that load."""
        granted = Granted(self.ticket)
        self._services.loads.acquire(self.ticket, lambda: self.post(granted), self.name)

    def make_room(self, drain: float) -> None:
        """Sleep, unless somebody needs the worker; with a `drain`, even then, after that many seconds at most."""
        self.post(Stop(ROOM, drain))

    def rest(self) -> None:
        """Sleep unless somebody needs the worker: the machine is short of memory."""
        self.post(Stop(PRESSURE))

    def refuse(self, reason: str) -> None:
        """Do not start, although requests may be waiting: they are told why."""
        self.post(Stop(ROOM, refusal=reason))

    # --- the task --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Handle messages until closed and the child is gone."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while not (self._closing and not machine.has_child(self.state)):
                    message = await self._next_message()
                    with contained(self.name):
                        await self._handle(message, tasks)
        finally:
            self._children.abandon()
            self._services.room.forget(self)
            self._services.loads.release(self.ticket)
            self._services.ports.release(self)

    async def _next_message(self) -> Message:
        due = machine.deadline(self.state)
        if due is None:
            return await self._inbox.get()
        with suppress(TimeoutError):
            async with clock.limit(max(0.0, due - time.monotonic())):
                return await self._inbox.get()
        return TimerDue()

    async def _handle(self, message: Message, tasks: asyncio.TaskGroup) -> None:
        match message:
            case FromChild(number, event):
                if number == self._children.number:
                    await self._step(event, tasks)
            case Granted(ticket):
                if ticket is self.ticket:
                    await self._step(LoadGranted(), tasks)
            case Reconfigure(profile, restart):
                self.profile = profile
                self._services.ports.reserve(self, profile.port)
                if restart:
                    await self._become_another(tasks)
            case Start(wanted=True) | Restart():
                self._wanted = isinstance(message, Restart) or not isinstance(self.state, Ready)
                await self._step(message, tasks)
            case Close(drain):
                self._closing = True
                await self._step(Stop("removed", drain), tasks)
            case _:
                await self._step(message, tasks)

    async def _become_another(self, tasks: asyncio.TaskGroup) -> None:
        """Go on with a new child, as the profile now says."""
        self._services.room.becomes_another(self)
        if isinstance(self.state, Queued):
            self._release_load()
            self._services.room.ask_anew(self, self._services.need(self.profile))
        elif machine.is_wanted(self.state):
            await self._step(Restart("config", self._services.drain_timeout), tasks)

    async def _step(self, event: Event, tasks: asyncio.TaskGroup) -> None:
        if isinstance(event, Stop) and self._is_overtaken(event):
            self._services.room.stays(self)
            return
        old = self.state
        policy = Policy(self.profile.restart, self.profile.health, self._services.stop_grace)
        self.state, effects = machine.step(old, event, time.monotonic(), policy, random())
        for effect in effects:
            with contained(self.name):
                await self._perform(effect, tasks)
        if isinstance(event, Exited):
            self._children.bury(getattr(self.state, "reason", getattr(old, "reason", "exit")))
        if self.state.label != old.label or type(self.state) is not type(old):
            with contained(self.name):
                self._outlook.note_change(old, event, closing=self._closing)
        if self.state != old:
            self._changed.set()
            self._changed = asyncio.Event()
            self._tell_room()
        if isinstance(event, BecameReady | HealthOk):
            self._measure(event)
        if isinstance(self.state, Draining) and not self._usage.open:
            await self._step(Drained(), tasks)

    def _is_overtaken(self, stop: Stop) -> bool:
        """Whether whoever sent this stop would not send it now, since a request has come in the meantime."""
        whoever_needs_it = stop.drain > 0 or stop.refusal
        return stop.reason in SLEEP and not whoever_needs_it and self._is_needed()

    def _measure(self, event: BecameReady | HealthOk) -> None:
        """Tell the room how large the worker is, at its start and now and then."""
        if isinstance(event, HealthOk) and time.monotonic() - self._measured_at < MEASURE:
            return
        self._measured_at = time.monotonic()
        if size := self._children.memory_here():
            self._services.room.has_grown(self, size)

    def _tell_room(self) -> None:
        if isinstance(self.state, Ready | Stopped):
            self._wanted = False
        if machine.has_child(self.state) or isinstance(self.state, Queued):
            self._services.room.look()
        else:
            self._services.room.leave(self)

    # --- effects ---------------------------------------------------------------------------------------------

    async def _perform(self, effect: Effect | CountRestart, tasks: asyncio.TaskGroup) -> None:
        match effect:
            case CountRestart(reason):
                self._outlook.count_restart(reason)
            case Effect.ACQUIRE_LOAD:
                self._services.room.ask(self, self._services.need(self.profile))
            case Effect.RELEASE_LOAD:
                self._release_load()
            case Effect.SPAWN:
                await self._children.spawn(tasks)
            case Effect.TERMINATE:
                self._children.terminate()
            case Effect.KILL_GROUP:
                self._children.kill_group()
            case _:
                assert_never(effect)

    def _release_load(self) -> None:
        self._services.loads.release(self.ticket)
        self.ticket = object()  # a grant that is still in the inbox is void
