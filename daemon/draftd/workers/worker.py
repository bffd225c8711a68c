"""One worker: a task with an inbox that feeds the state machine and performs its effects.

Theory of operation. Everything that can change the worker arrives in its inbox and is handled by `run`, one
message at a time; nobody else touches the state, so no lock guards it. What is said about a child carries the
child's number, and is dropped once there is another child; the same holds for a load slot and its ticket. An
exception that nobody foresaw ends what it interrupted, and neither the worker nor its neighbours: see `contained`.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from random import random
from typing import assert_never

import structlog

from draftd import clock
from draftd.hub import weight_bytes
from draftd.profiles import Profile
from draftd.protocol import SECRET_HEADER
from draftd.sockets import holders_of
from draftd.workers import command, machine
from draftd.workers.gpu_faults import gpu_fault
from draftd.workers.health import watch
from draftd.workers.process import Child, contained, tell_fault
from draftd.workers.reasons import Load, why
from draftd.workers.services import Services
from draftd.workers.states import (
    IDLE,
    Backoff,
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
    LoadGranted,
    Message,
    Queued,
    Ready,
    Reconfigure,
    Restart,
    SpawnFailed,
    Starting,
    State,
    Stop,
    Stopped,
    Stopping,
    TimerDue,
)
from draftd.workers.status import LastExit, WorkerStatus
from draftd.workers.usage import Lease, Usage, refusal
from draftd.workers.watched import Watched

log = structlog.get_logger("worker")

NEVER_READY = ("start_timeout", "no_progress")  # reasons that need what the readiness check was answered
LAST_WORDS = 8192  # bytes of a child's output that are looked at for what ended it
LAST_LINES = 8  # of a child's output that are kept with its exit


class Worker:
    """See the module. All methods are for the event loop's thread."""

    def __init__(self, profile: Profile, services: Services) -> None:
        self.profile = profile
        self.name = profile.name  # in its log and its messages; the supervisor may change it
        self.state: State = Stopped(time.monotonic())
        self._services = services
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._closing = False
        self._usage = Usage()
        self._child: Child | None = None
        self._child_number = 0
        self.watched: Watched | None = None  # what its engine says of the child, or of the one being started
        self._monitor: asyncio.Task[None] | None = None
        self._ticket = object()
        self._port: int | None = None
        self._spawned_at = 0.0
        self._weights: int | None = None  # bytes that the models' weights have; 0 if they are not here
        self._since = time.time()
        self._start_seconds: float | None = None
        self._restarts = 0
        self._last_exit: LastExit | None = None
        self._notes: tuple[str, ...] = ()
        services.ports.reserve(self, profile.port)

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
                yield Lease(port, headers, self._child_number, self._usage.progress)
        finally:
            if not self._usage.open and isinstance(self.state, Draining):
                self.post(Drained())

    async def _until_ready(self, name: str) -> tuple[int, Mapping[str, str]]:
        if not isinstance(self.state, Ready):
            self.post(Demand())
        started = False
        while not isinstance(self.state, Ready):
            started = started or isinstance(self.state, Queued | Starting)
            no = refusal(name, self.state, self._last_exit, time.monotonic(), witnessed_start=started)
            if no is not None:
                raise no
            await self._changed.wait()
        assert self.watched is not None, "it comes before the child"
        return self.watched.port, self.watched.headers

    async def until_changed(self, limit: float) -> None:
        """Return at the next change of state, or after `limit` seconds."""
        with suppress(TimeoutError):
            async with clock.limit(limit):
                await self._changed.wait()

    def serves(self, child: int) -> bool:
        """Whether the child with this number lives, and has not been told to end."""
        return self._child_number == child and isinstance(self.state, Ready | Draining)

    def status(self) -> WorkerStatus:
        """The worker now."""
        child, watched = self._child, self.watched
        return WorkerStatus(
            name=self.name,
            worker=self.name,
            shares_with=(),
            state=self.state.label,
            pid=child.pid if child else None,
            port=self._port if child else None,
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
            last_exit=self._last_exit,
            memory_bytes=watched.memory() if child and watched else None,
            start_seconds=self._start_seconds,
            accounting=watched is not None and watched.accounting,
            draft_refusal=watched.draft_refusal if watched else None,
            notes=self._notes,
        )

    def _reason(self) -> str:
        watched, child = self.watched, self._child
        load = Load()
        if watched and isinstance(self.state, Starting):
            if self._weights is None:
                self._weights = 0 if self.profile.command else weight_bytes(self.profile.models) or 0
            memory = watched.memory() if child else None
            load = Load(status=watched.status, answer=watched.answer, memory=memory, weights=self._weights)
        return why(
            self.name,
            self.state,
            ahead=self._services.loads.ahead(self._ticket),
            load=load,
            open_requests=self._usage.open,
            last=self._last_exit,
        )

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
            if self._child is not None:  # cancelled: leave nothing behind
                self._child.kill_group()
                self._child.close()
            self._services.memory.release(self)
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
                if number == self._child_number:
                    await self._step(event, tasks)
            case Granted(ticket):
                if ticket is self._ticket:
                    await self._step(LoadGranted(), tasks)
            case Reconfigure(profile, restart):
                self.profile = profile
                self._services.ports.reserve(self, profile.port)
                if restart and machine.is_wanted(self.state):
                    await self._step(Restart("config", self._services.drain_timeout), tasks)
            case Close(drain):
                self._closing = True
                await self._step(Stop("removed", drain), tasks)
            case _:
                await self._step(message, tasks)

    async def _step(self, event: Event, tasks: asyncio.TaskGroup) -> None:
        if isinstance(event, Stop) and event.reason == IDLE and not self._usage.idle_seconds():
            return  # a request came after the monitor looked
        old = self.state
        policy = machine.Policy(self.profile.restart, self.profile.health, self._services.stop_grace)
        self.state, effects = machine.step(old, event, time.monotonic(), policy, random())
        for effect in effects:
            with contained(self.name):
                await self._perform(effect, tasks)
        if isinstance(event, Exited):
            self._bury(getattr(self.state, "reason", getattr(old, "reason", "exit")))
        if self.state.label != old.label or type(self.state) is not type(old):
            with contained(self.name):
                self._note_change(old, event)
        if self.state != old:
            self._changed.set()
            self._changed = asyncio.Event()
        if isinstance(self.state, Draining) and not self._usage.open:
            await self._step(Drained(), tasks)

    def _note_change(self, old: State, event: Event) -> None:
        if isinstance(self.state, Ready):
            self._start_seconds = time.monotonic() - self._spawned_at
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
            port=self._port,
        )
        self._services.on_change()

    def _is_no_news(self) -> bool:
        """A turn that comes at once, and the end of a child where the worker ends."""
        at_once = isinstance(self.state, Queued) and not self._services.loads.ahead(self._ticket)
        return at_once or (self._closing and isinstance(self.state, Stopping))

    def _told_reason(self) -> str:
        """What the log says with a new state."""
        match self.state:
            case Ready():
                return f"after {self._start_seconds:.1f} s, on port {self._port}"
            case Starting():
                return f"on port {self._port}"
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
                granted = Granted(self._ticket)
                self._services.loads.acquire(self._ticket, lambda: self.post(granted), self.name)
            case Effect.RELEASE_LOAD:
                self._services.loads.release(self._ticket)
                self._ticket = object()  # a grant that is still in the inbox is void
            case Effect.SPAWN:
                await self._spawn(tasks)
            case Effect.TERMINATE:
                if self._child:
                    self._child.terminate()
            case Effect.KILL_GROUP:
                if self._child:
                    self._child.kill_group()
            case _:
                assert_never(effect)

    async def _spawn(self, tasks: asyncio.TaskGroup) -> None:
        number = self._child_number

        def post(event: Event) -> None:
            self.post(FromChild(number, event))

        try:
            self._port, skipped = self._services.ports.take(self)
            self._notes = tuple([str(await asyncio.to_thread(holders_of, port)) for port in skipped])
            self._weights = None
            self._spawned_at = time.monotonic()
            limit = self._services.drain_timeout
            watched = self.watched = Watched(self._port, lambda: self.profile, self._usage, limit)
            self._child = await self._services.starter.start(
                command.argv(self.profile, self._port),
                functools.partial(self._services.environment, self.profile),
                on_output=functools.partial(self._hear, watched),
                on_record=self._hear_record,
                on_exit=lambda: post(Exited(fault.reason if (fault := gpu_fault(watched.said)) else "exit")),
            )
        except Exception as error:
            if not isinstance(error, OSError):
                tell_fault(self.name)
            self._last_exit = LastExit(None, f"the worker could not be started: {error}", time.time(), ())
            post(SpawnFailed("spawn"))
            return
        with contained(self.name):
            self._services.share_memory(self, self.profile, self._child)
        watched.pid = self._child.pid
        watched.headers = {SECRET_HEADER: self._child.secret} if self._child.secret else {}
        watching = watch(watched, self._services.session, post)
        self._monitor = tasks.create_task(watching, name=f"monitor {self.name}")

    def _hear(self, watched: Watched, chunk: bytes) -> None:
        watched.output += len(chunk)
        watched.said = (watched.said + chunk)[-LAST_WORDS:]
        with contained(self.name):
            self._services.on_output(self.name, chunk)

    def _hear_record(self, line: bytes) -> None:
        with contained(self.name):
            self._services.on_record(self.name, line)

    def _bury(self, reason: str) -> None:
        """The child is gone: keep its last words, and let go of what it had."""
        child, self._child = self._child, None
        watched, self.watched = self.watched, None
        assert child is not None, "it has just ended"
        assert watched is not None, "it comes before the child"
        assert self._monitor is not None, "it comes with the child"
        self._child_number += 1  # what was said about it and is still in the inbox is void
        self._monitor.cancel()
        self._services.memory.release(self)
        child.close()
        fault = gpu_fault(watched.said)
        ours = [fault.words] if fault else []
        ours += [watched.answer] if reason in NEVER_READY else []
        words = tuple(f"draftd: {text}" for text in ours)
        self._last_exit = LastExit(child.exit_code, reason, time.time(), words)
        with contained(self.name):
            lines = tuple(self._services.tail(self.name, LAST_LINES))
            self._last_exit = replace(self._last_exit, lines=lines + words)
