"""One worker: a task with an inbox that feeds the state machine and performs its effects.

Theory of operation. Everything that can change the worker arrives in its inbox and is handled by `run`, one
message at a time; nobody else touches the state, so no lock guards it. What a child says carries the child's
number, and words of an earlier child are dropped; the same holds for the load slot and its ticket.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from random import random
from typing import assert_never

import structlog

from draftd.hub import are_here
from draftd.profiles import Profile
from draftd.sockets import holder_of
from draftd.workers import command, health, machine
from draftd.workers.messages import Close, FromChild, Granted, Message, Reconfigure
from draftd.workers.monitor import Watched, watch
from draftd.workers.process import Child
from draftd.workers.services import Services
from draftd.workers.states import (
    IDLE,
    Backoff,
    CountRestart,
    Demand,
    Drained,
    Draining,
    Effect,
    Event,
    Exited,
    Failed,
    LoadGranted,
    Queued,
    Ready,
    Restart,
    SpawnFailed,
    Starting,
    State,
    Stop,
    Stopped,
    TimerDue,
)
from draftd.workers.status import LastExit, WorkerStatus
from draftd.workers.usage import Lease, Use, refusal

log = structlog.get_logger("worker")

LAST_LINES = 8


class Worker:
    """See the module. All methods are for the event loop's thread."""

    def __init__(self, profile: Profile, services: Services) -> None:
        self.profile = profile
        self.name = profile.name  # in its log and its messages; the supervisor gives it another
        self.state: State = Stopped(time.monotonic())
        self._services = services
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._closing = False
        self._use = Use()
        self._child: Child | None = None
        self._child_number = 0
        self._monitor: asyncio.Task[None] | None = None
        self._ticket = object()
        self._port: int | None = None
        self._spawned_at = 0.0
        self._since = time.time()
        self._start_seconds: float | None = None
        self._restarts = 0
        self._last_exit: LastExit | None = None
        self._accounting = False
        self._notes: tuple[str, ...] = ()
        services.ports.reserve(self, profile.port)

    def __repr__(self) -> str:
        return f"<Worker {self.name} {self.state.label} port={self._port}>"

    # --- for everyone ----------------------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Put an order into the inbox."""
        self._inbox.put_nowait(event)

    def reconfigure(self, profile: Profile, *, restart: bool) -> None:
        """Serve `profile` from now on; with `restart` by a new child, else by the one there is."""
        self._inbox.put_nowait(Reconfigure(profile, restart))

    def close(self, drain: float) -> None:
        """End for good, leaving `drain` seconds to open requests; `run` returns when the child is gone."""
        self._inbox.put_nowait(Close(drain))

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Lease]:
        """A ready child for one request to the profile `name`; starts the child if it sleeps.

        Raises WorkerError (503) if there is none to be had soon.
        """
        self._use.waiting += 1
        try:
            port = await self._until_ready(name)
        finally:
            self._use.waiting -= 1
            self._use.touch()
        self._use.open += 1
        self._use.progress()
        try:
            yield Lease(port, self._use.progress)
        finally:
            self._use.open -= 1
            self._use.touch()
            if not self._use.open and isinstance(self.state, Draining):
                self.post(Drained())

    async def _until_ready(self, name: str) -> int:
        if not isinstance(self.state, Ready):
            self.post(Demand())
        started = False
        while not isinstance(self.state, Ready):
            started = started or isinstance(self.state, Queued | Starting)
            no = refusal(name, self.state, self._last_exit, time.monotonic(), witnessed_start=started)
            if no is not None:
                raise no
            await self._changed.wait()
        assert self._port is not None
        return self._port

    async def until_changed(self, limit: float) -> None:
        """Return at the next change of state, or after `limit` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._changed.wait()

    def status(self) -> WorkerStatus:
        """The worker now."""
        child = self._child
        return WorkerStatus(
            name=self.name,
            worker=self.name,
            shares_with=(),
            state=self.state.label,
            pid=child.pid if child else None,
            port=self._port if child else None,
            model=self.profile.model,
            draft_model=self.profile.draft_model,
            num_draft_tokens=self.profile.draft_length,
            auto_draft=self.profile.auto_draft,
            since=self._since,
            restarts=self._restarts,
            last_exit=self._last_exit,
            memory_bytes=self._memory(),
            start_seconds=self._start_seconds,
            accounting=self._accounting,
            notes=self._notes,
        )

    def engine_started(self, *, accounting: bool) -> None:
        """The engine is up, and counts draft tokens, or not."""
        self._accounting = accounting

    def engine_progress(self, memory: int | None) -> None:
        """The engine says that it gets on with a request, and how many bytes of memory it uses."""
        self._use.progress()
        if memory is not None:
            self._use.memory = memory

    def _memory(self) -> int | None:
        """Bytes: the processes' resident size, or what the engine says if that is more (a GPU's memory)."""
        if self._child is None:
            return None
        resident = health.memory_of(self._child.pid, family=bool(self.profile.command))
        return None if resident is None else max(resident, self._use.memory)

    # --- the task --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Handle messages until closed and the child is gone."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while not (self._closing and not machine.has_child(self.state)):
                    await self._handle(await self._next_message(), tasks)
        finally:
            if self._child is not None:  # cancelled: leave nothing behind
                self._child.kill_group()
                self._child.close()
            self._services.loads.release(self._ticket)
            self._services.ports.release(self)

    async def _next_message(self) -> Message:
        due = machine.deadline(self.state)
        if due is None:
            return await self._inbox.get()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
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
        if isinstance(event, Stop) and event.reason == IDLE and not self._use.idle_seconds():
            return  # a request came after the monitor had looked
        if isinstance(event, Drained) and self._use.open:
            return  # a request came after the last one had left
        old = self.state
        self.state, effects = machine.step(old, event, time.monotonic(), self._policy(), random())
        for effect in effects:
            await self._perform(effect, tasks)
        if isinstance(event, Exited):
            self._bury(getattr(self.state, "reason", getattr(old, "reason", "exit")))
        if type(self.state) is not type(old):
            self._note_change(old, event)
        if self.state != old:
            self._changed.set()
            self._changed = asyncio.Event()
        if isinstance(self.state, Draining) and not self._use.open:
            await self._step(Drained(), tasks)

    def _policy(self) -> machine.Policy:
        policy = self.profile.health
        return machine.Policy(
            restart=self.profile.restart,
            health_failures=policy.failures,
            start_timeout=policy.start_timeout,
            stop_grace=self._services.stop_grace,
        )

    def _note_change(self, old: State, event: Event) -> None:
        if isinstance(self.state, Ready):
            self._start_seconds = time.monotonic() - self._spawned_at
        self._since = time.time()
        write = log.warning if isinstance(self.state, Backoff | Failed) else log.info
        because = getattr(event, "reason", None) or getattr(self.state, "reason", type(event).__name__)
        write(
            f"worker {self.state.label}",
            worker=self.name,
            was=old.label,
            because=because,
            port=self._port,
        )
        self._services.on_change()

    # --- effects ---------------------------------------------------------------------------------------------

    async def _perform(self, effect: Effect | CountRestart, tasks: asyncio.TaskGroup) -> None:
        match effect:
            case CountRestart(reason):
                self._restarts += 1
                self._services.on_restart(self.name, reason)
            case Effect.ACQUIRE_LOAD:
                granted = Granted(self._ticket)
                self._services.loads.acquire(self._ticket, lambda: self._inbox.put_nowait(granted))
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
        self._child_number += 1
        number = self._child_number

        def post(event: Event) -> None:
            self._inbox.put_nowait(FromChild(number, event))

        try:
            self._port, skipped = self._services.ports.take(self)
            self._notes = tuple([str(await asyncio.to_thread(holder_of, port)) for port in skipped])
            self._spawned_at = time.monotonic()
            self._use.memory = 0
            self._child = await self._services.starter.start(
                command.argv(self.profile, self._port),
                functools.partial(_environment, self.profile, self._services.base_env),
                on_output=lambda chunk: self._services.on_output(self.name, chunk),
                on_exit=lambda: post(Exited()),
            )
        except OSError as error:
            self._last_exit = LastExit(None, f"the worker could not be started: {error}", time.time(), ())
            post(SpawnFailed("spawn"))
            return
        watched = Watched(
            pid=self._child.pid,
            port=self._port,
            profile=lambda: self.profile,
            use=self._use,
            memory=self._memory,
            drain=self._services.drain_timeout,
        )
        self._monitor = tasks.create_task(
            watch(watched, self._services.session, post), name=f"monitor {self.name}"
        )

    def _bury(self, reason: str) -> None:
        """The child is gone: keep what it said, let go of what it had."""
        child, self._child = self._child, None
        self._accounting = False
        self._child_number += 1  # what its monitor has said and is still in the inbox is void
        if self._monitor:
            self._monitor.cancel()
        if child is None:
            return
        child.close()
        lines = tuple(self._services.tail(self.name, LAST_LINES))
        self._last_exit = LastExit(child.exit_code, reason, time.time(), lines)


def _environment(profile: Profile, base: Mapping[str, str]) -> dict[str, str]:
    return command.environment(base, offline=are_here(profile.files, base))
