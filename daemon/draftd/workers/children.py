"""The children of one worker, one after the other: started, heard, watched, and buried with their last words.

What is said about a child carries that child's number, and is void once there is another child.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Protocol

from draftd.first_start import weights_here
from draftd.profiles import Profile
from draftd.protocol import SECRET_HEADER
from draftd.sockets import holders_of
from draftd.workers import command, kernel_kills
from draftd.workers.events import OOM, Event, Exited, FromChild, SpawnFailed
from draftd.workers.gpu_faults import gpu_fault
from draftd.workers.health import watch
from draftd.workers.process import Child, contained, tell_fault
from draftd.workers.reasons import Load
from draftd.workers.services import Services
from draftd.workers.status import LastExit
from draftd.workers.usage import Usage
from draftd.workers.watched import Watched

NEVER_READY = (
    "start_timeout",
    "no_progress",
)  # reasons that people see with the answer to the readiness check
LAST_WORDS = 8192  # bytes of a child's output that are searched for what ended it
LAST_LINES = 8  # of a child's output that are kept with its exit


class Owner(Hashable, Protocol):
    """The worker. Its name, its profile and whom it serves may change."""

    name: str
    profile: Profile
    profiles: tuple[str, ...]

    def post(self, message: FromChild) -> None:
        """Put what is said about a child into the worker's inbox."""


class Children:
    """See the module's docstring. For the worker's own task, except for what only reads. `watched` is there before
    its child.
    """

    def __init__(self, owner: Owner, services: Services, usage: Usage) -> None:
        self._owner = owner
        self._services = services
        self._usage = usage
        self._monitor: asyncio.Task[None] | None = None
        self._weights: int | None = None  # size of the models' weights in bytes; 0 if they are not here
        self.child: Child | None = None
        self.watched: Watched | None = None  # what is known of the child, or of the one being started
        self.number = 0
        self.port: int | None = None
        self.notes: tuple[str, ...] = ()  # who holds the ports that were skipped
        self.spawned_at = 0.0  # monotonic seconds
        self.last_exit: LastExit | None = None

    async def spawn(self, tasks: asyncio.TaskGroup) -> None:
        """Start one, and its monitor among the `tasks`. A failure is posted like any event of a child."""
        number = self.number

        def post(event: Event) -> None:
            self._owner.post(FromChild(number, event))

        try:
            self.port, skipped = self._services.ports.take(self._owner)
            self.notes = tuple([str(await asyncio.to_thread(holders_of, port)) for port in skipped])
            self._weights = None
            self.spawned_at = time.monotonic()
            self.child = await self._start(self.port, post)
        except Exception as error:
            if not isinstance(error, OSError):
                tell_fault(self._owner.name)
            self.last_exit = LastExit(None, f"the worker could not be started: {error}", time.time(), ())
            post(SpawnFailed("spawn"))
            return
        self._look_after(self.child, post, tasks)

    async def _start(self, port: int, post: Callable[[Event], None]) -> Child:
        owner, services = self._owner, self._services
        watched = Watched(port, lambda: owner.profile, self._usage, services.drain_timeout)
        watched.beginnings = lambda: services.beginnings(owner.profiles)
        self.watched = watched
        return await services.starter.start(
            command.argv(owner.profile, port),
            functools.partial(services.environment, owner.profile),
            on_output=functools.partial(self._hear, watched),
            on_record=self._hear_record,
            on_exit=lambda: post(Exited(self._reason_of_exit(watched))),
        )

    def _reason_of_exit(self, watched: Watched) -> str:
        if fault := gpu_fault(watched.said):
            return fault.reason
        killed = self.child is not None and self.child.exit_code == -signal.SIGKILL
        return OOM if killed and self._services.is_short_of_memory() else "exit"

    def _look_after(self, child: Child, post: Callable[[Event], None], tasks: asyncio.TaskGroup) -> None:
        assert self.watched is not None, "it comes before the child"
        with contained(self._owner.name):
            self._services.share_memory(self._owner, self._owner.profile, child)
        self.watched.pid = child.pid
        self.watched.headers = {SECRET_HEADER: child.secret} if child.secret else {}
        watching = watch(self.watched, self._services.session, post)
        self._monitor = tasks.create_task(watching, name=f"monitor {self._owner.name}")

    def _hear(self, watched: Watched, chunk: bytes) -> None:
        watched.output += len(chunk)
        watched.said = (watched.said + chunk)[-LAST_WORDS:]
        with contained(self._owner.name):
            self._services.on_output(self._owner.name, chunk)

    def _hear_record(self, line: bytes) -> None:
        with contained(self._owner.name):
            self._services.on_record(self._owner.name, line)

    def memory_here(self) -> int | None:
        """The same, for this machine only."""
        return self.watched.memory_here() if self.child and self.watched else None

    def memory(self) -> int | None:
        """Bytes that the child uses; None if there is none, or if that cannot be known."""
        return self.watched.memory() if self.child and self.watched else None

    def load(self) -> Load:
        """How far the child has got with its load."""
        if self.watched is None:
            return Load()
        profile = self._owner.profile
        if self._weights is None:
            self._weights = 0 if profile.command else weights_here(profile) or 0
        watched = self.watched
        here = self.memory_here()
        return Load(status=watched.status, answer=watched.answer, memory=here, weights=self._weights)

    def terminate(self) -> None:
        """Tell the child to end, if there is one."""
        if self.child:
            self.child.terminate()

    def kill_group(self) -> None:
        """Kill what is left of its process group, if anything is."""
        if self.child:
            self.child.kill_group()

    def bury(self, reason: str) -> None:
        """The child is gone: keep its last words, and release what it had."""
        child, self.child = self.child, None
        watched, self.watched = self.watched, None
        assert child is not None, "it has just ended"
        assert watched is not None, "it comes before the child"
        assert self._monitor is not None, "it comes with the child"
        self.number += 1
        self._monitor.cancel()
        self._services.memory.release(self._owner)
        child.close()
        fault = gpu_fault(watched.said)
        ours = [fault.words] if fault else []
        ours += [watched.answer] if reason in NEVER_READY else []
        silent = watched.silent_rank(self._owner.profile.health.timeout) if reason == "unhealthy" else ""
        ours += [silent] if silent else []
        ours += [kernel_kills.WORDS] if reason == OOM else []
        words = tuple(f"draftd: {text}" for text in ours)
        self.last_exit = LastExit(child.exit_code, reason, time.time(), words)
        with contained(self._owner.name):
            lines = tuple(self._services.tail(self._owner.name, LAST_LINES))
            self.last_exit = replace(self.last_exit, lines=lines + words)

    def abandon(self) -> None:
        """The worker was cancelled: leave nothing behind."""
        if self.child is not None:
            self.child.kill_group()
            self.child.close()
        self._services.memory.release(self._owner)
