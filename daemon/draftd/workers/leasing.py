"""What a request gets of a worker: a ready child, started if need be, or the error that says why there is none."""

from __future__ import annotations

import time
from typing import Protocol

from draftd.errors import WorkerError
from draftd.profiles import Profile
from draftd.workers.children import Children
from draftd.workers.events import Demand, Drained, Message
from draftd.workers.room import Tenant
from draftd.workers.services import Services
from draftd.workers.states import Draining, Queued, Ready, Starting, State, Stopped
from draftd.workers.usage import MAX_QUEUED_WAIT, Lease, Usage, refusal


class Leased(Tenant, Protocol):
    """The worker."""

    state: State
    profile: Profile

    def post(self, message: Message) -> None:
        """Put an order into its inbox."""

    async def until_changed(self, limit: float) -> None:
        """Return at the next change of its state, or after `limit` seconds."""


class Leasing:
    """See the module's docstring. For the event loop's thread."""

    def __init__(self, worker: Leased, services: Services, usage: Usage, children: Children) -> None:
        self._worker = worker
        self._services = services
        self._usage = usage
        self._children = children

    def lease(self, name: str) -> _OneLease:
        """A ready child for one request to the profile `name`, while the block runs; starts a child if the worker
        sleeps. Raises WorkerError (503) if there is none to be had soon.
        """
        return _OneLease(self, name)

    async def begin(self, name: str) -> Lease:
        """See `lease`; `end` follows."""
        if isinstance(self._worker.state, Ready):
            self._usage.ask()
        else:
            with self._usage.waits():
                await self._until_ready(name)
        watched = self._children.watched
        assert watched is not None, "it comes before the child"
        self._usage.begin()
        return Lease(watched.port, watched.headers, self._children.number, self._usage.progress)

    def end(self) -> None:
        """A request needs its child no more."""
        self._usage.end()
        if not self._usage.open:
            if isinstance(self._worker.state, Draining):
                self._worker.post(Drained())
            self._services.room.fell_idle()

    async def _until_ready(self, name: str) -> None:
        worker = self._worker
        worker.post(Demand())
        before, started, began = worker.state, False, time.monotonic()
        while not isinstance(worker.state, Ready):
            started = started or isinstance(worker.state, Queued | Starting)
            now, last = time.monotonic(), self._children.last_exit
            no = refusal(name, worker.state, last, now, waited=now - began, witnessed_start=started)
            if no is not None or (no := self._no_room(name, before)) is not None:
                raise no
            await worker.until_changed(MAX_QUEUED_WAIT)

    def _no_room(self, name: str, before: State) -> WorkerError | None:
        """The error for a request to a worker that can never be in memory, or that has been refused room since it
        was in the state `before`; None if waiting is right.
        """
        worker = self._worker
        if self._children.child is not None:
            return None
        reason = self._services.room.refusal(worker, self._services.need(worker.profile))
        if reason:
            return WorkerError(f"'{name}' does not fit in memory: {reason}", code="no_room", retry=False)
        if isinstance(worker.state, Stopped) and worker.state.refusal and worker.state is not before:
            text = f"'{name}' did not fit in memory: {worker.state.refusal}"  # and would by now
            return WorkerError(text, code="no_room", retry_after=1.0)
        return None


class _OneLease:
    """What `lease` returns. (A generator would take ten times as long to enter and leave.)"""

    __slots__ = ("_leasing", "_name")

    def __init__(self, leasing: Leasing, name: str) -> None:
        self._leasing = leasing
        self._name = name

    async def __aenter__(self) -> Lease:
        return await self._leasing.begin(self._name)

    async def __aexit__(self, *_: object) -> None:
        self._leasing.end()
