"""One worker: a task with an inbox that feeds the state machine and performs its effects.

Theory of operation. Everything that can change the worker arrives in its inbox and is handled by `run`, one
message at a time; nobody else touches the state, so no lock guards it. What is said about a child carries that
child's number, and is dropped once there is another child; the same holds for a load slot and its ticket. An
exception that nobody foresaw ends what it interrupted, but neither the worker nor its neighbours: see `contained`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from random import random
from typing import assert_never

import structlog

from draftd import clock
from draftd.errors import WorkerError
from draftd.profiles import Profile
from draftd.workers import machine
from draftd.workers.children import Children
from draftd.workers.process import contained
from draftd.workers.reasons import Load, why
from draftd.workers.room import Standing
from draftd.workers.services import Services
from draftd.workers.states import (
    PRESSURE,
    ROOM,
    SLEEP,
    Backoff,
    BecameReady,
    Close,
    CountRestart,
    Demand,
    Drained,
    Draining,
    Effect,
    Event,
    Exited,
    Failed,
    FromChild,
    Granted,
    HealthOk,
    LoadGranted,
    Message,
    Queued,
    Ready,
    Reconfigure,
    Restart,
    Start,
    Starting,
    State,
    Stop,
    Stopped,
    Stopping,
    TimerDue,
)
from draftd.workers.status import WorkerStatus
from draftd.workers.transitions import Policy
from draftd.workers.usage import MAX_QUEUED_WAIT, Lease, Usage, refusal
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
        self._ticket = object()
        self._wanted = False  # by a person who has told it to start
        self._measured_at = 0.0
        self._since = time.time()
        self._start_seconds: float | None = None
        self._restarts = 0
        services.ports.reserve(self, profile.port)

    @property
    def watched(self) -> Watched | None:
        """What is known of the child that there is, or of the one that is being started."""
        return self._children.watched

    def post(self, message: Message) -> None:
        """Put an order into the inbox."""
        self._inbox.put_nowait(message)

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Lease]:
        """A ready child for one request to the profile `name`; starts a child if the worker sleeps.

        Raises WorkerError (503) if there is none to be had soon.
        """
        with self._usage.waits():
            port, headers = await self._until_ready(name)
        try:
            with self._usage.serves():
                yield Lease(port, headers, self._children.number, self._usage.progress)
        finally:
            if not self._usage.open and isinstance(self.state, Draining):
                self.post(Drained())
            if not self._usage.open:
                self._services.room.fell_idle()

    async def _until_ready(self, name: str) -> tuple[int, Mapping[str, str]]:
        if not isinstance(self.state, Ready):
            self.post(Demand())
        before, started, began = self.state, False, time.monotonic()
        while not isinstance(self.state, Ready):
            started = started or isinstance(self.state, Queued | Starting)
            now, last = time.monotonic(), self._children.last_exit
            no = refusal(name, self.state, last, now, waited=now - began, witnessed_start=started)
            if no is not None or (no := self._no_room(name, before)) is not None:
                raise no
            await self.until_changed(MAX_QUEUED_WAIT)
        assert self.watched is not None, "it comes before the child"
        return self.watched.port, self.watched.headers

    def _no_room(self, name: str, before: State) -> WorkerError | None:
        """The error for a request to a worker that can never be in memory, or that has been refused room since it
        was in the state `before`; None if waiting is right.
        """
        if self._children.child is not None:
            return None
        reason = self._services.room.refusal(self, self._services.need(self.profile))
        if reason:
            return WorkerError(f"'{name}' does not fit in memory: {reason}", code="no_room", retry=False)
        if isinstance(self.state, Stopped) and self.state.refusal and self.state is not before:
            text = f"'{name}' did not fit in memory: {self.state.refusal}"  # and would by now
            return WorkerError(text, code="no_room", retry_after=1.0)
        return None

    async def until_changed(self, limit: float) -> None:
        """Return at the next change of state, or after `limit` seconds."""
        with suppress(TimeoutError):
            async with clock.limit(limit):
                await self._changed.wait()

    @property
    def start_seconds(self) -> float | None:
        """How long the last start took until ready; None before the first."""
        return self._start_seconds

    def serves(self, child: int) -> bool:
        """Whether the child with this number lives, and has not been told to end."""
        return self._children.number == child and isinstance(self.state, Ready | Draining)

    def status(self) -> WorkerStatus:
        """The worker now."""
        children, watched = self._children, self.watched
        return WorkerStatus(
            name=self.name,
            worker=self.name,
            shares_with=(),
            state=self.state.label,
            pid=children.child.pid if children.child else None,
            port=children.port if children.child else None,
            model=self.profile.model,
            draft_model=self.profile.draft_model,
            drafters=self.profile.all_drafters,
            num_draft_tokens=self.profile.draft_length,
            auto_draft=self.profile.auto_draft,
            since=self._since,
            reason=self._reason(),
            due=None
            if (due := machine.deadline(self.state)) is None
            else time.time() + due - time.monotonic(),
            restarts=self._restarts,
            last_exit=children.last_exit,
            memory_bytes=children.memory(),
            start_seconds=self._start_seconds,
            accounting=watched is not None and watched.accounting,
            draft_refusal=watched.draft_refusal if watched else None,
            batch_refusal=watched.batch_refusal if watched else None,
            notes=children.notes,
            ranks=watched.ranks if watched else (),
            prompt_cache=watched.prompt_cache if watched else None,
        )

    def _reason(self) -> str:
        room = self._services.room
        in_memory = room.instead_of(self)
        return why(
            self.name,
            self.state,
            ahead=self._services.loads.ahead(self._ticket) if in_memory is None else room.before(self),
            in_memory=in_memory,
            strained=room.strained,
            load=self._children.load() if isinstance(self.state, Starting) else Load(),
            open_requests=self._usage.open,
            last=self._children.last_exit,
        )

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
        granted = Granted(self._ticket)
        self._services.loads.acquire(self._ticket, lambda: self.post(granted), self.name)

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
            self._services.loads.release(self._ticket)
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
                if ticket is self._ticket:
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
                self._note_change(old, event)
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

    def _note_change(self, old: State, event: Event) -> None:
        if isinstance(self.state, Ready):
            self._start_seconds = time.monotonic() - self._children.spawned_at
        self._since = time.time()
        write = log.warning if isinstance(self.state, Backoff | Failed) else log.info
        if self._is_no_news():
            write = log.debug
        because = getattr(event, "reason", None) or getattr(self.state, "reason", type(event).__name__)
        write(
            f"worker {self.state.label}",
            worker=self.name,
            state=self.state.label,
            was=old.label,
            because=because,
            reason=self._told_reason(),
            port=self._children.port,
        )
        self._services.on_change()

    def _is_no_news(self) -> bool:
        """Whether it is a turn that comes at once, or the end of a child whose worker ends."""
        at_once = isinstance(self.state, Queued) and not self._services.loads.ahead(self._ticket)
        return at_once or (self._closing and isinstance(self.state, Stopping))

    def _told_reason(self) -> str:
        """What the log says with a new state."""
        match self.state:
            case Ready():
                return f"after {self._start_seconds:.1f} s, on port {self._children.port}"
            case Starting():
                return f"on port {self._children.port}"
            case Stopped() if self._closing:
                return ""
            case _:
                return self._reason()

    # --- effects ---------------------------------------------------------------------------------------------

    async def _perform(self, effect: Effect | CountRestart, tasks: asyncio.TaskGroup) -> None:
        match effect:
            case CountRestart(reason):
                self._restarts += 1
                self._services.on_restart(self.name, reason)
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
        self._services.loads.release(self._ticket)
        self._ticket = object()  # a grant that is still in the inbox is void
