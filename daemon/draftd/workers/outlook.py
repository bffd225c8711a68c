"""How a worker looks from outside: its status, why it is in its state, and what the log says of each change."""

from __future__ import annotations

import time
from typing import Protocol

import structlog

from draftd.profiles import Profile
from draftd.workers import machine
from draftd.workers.children import Children
from draftd.workers.events import Event
from draftd.workers.reasons import Load, why
from draftd.workers.room import Tenant
from draftd.workers.services import Services
from draftd.workers.states import Backoff, Failed, Queued, Ready, Starting, State, Stopped, Stopping
from draftd.workers.status import WorkerStatus
from draftd.workers.usage import Usage

log = structlog.get_logger("worker")


class Seen(Tenant, Protocol):
    """The worker. `ticket` is what it holds a load slot with, or waits for one."""

    state: State
    profile: Profile
    ticket: object


class Outlook:
    """See the module's docstring. For the event loop's thread."""

    def __init__(self, worker: Seen, services: Services, usage: Usage, children: Children) -> None:
        self._worker = worker
        self._services = services
        self._usage = usage
        self._children = children
        self._since = time.time()
        self._restarts = 0
        self.start_seconds: float | None = None  # how long the last start took until ready

    def status(self) -> WorkerStatus:
        """The worker now."""
        worker, children, watched = self._worker, self._children, self._children.watched
        due = machine.deadline(worker.state)
        return WorkerStatus(
            name=worker.name,
            worker=worker.name,
            shares_with=(),
            state=worker.state.label,
            pid=children.child.pid if children.child else None,
            port=children.port if children.child else None,
            model=worker.profile.model,
            draft_model=worker.profile.draft_model,
            drafters=worker.profile.all_drafters,
            num_draft_tokens=worker.profile.draft_length,
            auto_draft=worker.profile.auto_draft,
            since=self._since,
            waiting=self._usage.waiting,
            reason=self._reason(),
            due=None if due is None else time.time() + due - time.monotonic(),
            restarts=self._restarts,
            last_exit=children.last_exit,
            memory_bytes=children.memory(),
            start_seconds=self.start_seconds,
            accounting=watched is not None and watched.accounting,
            draft_refusal=watched.draft_refusal if watched else None,
            batch_refusal=watched.batch_refusal if watched else None,
            notes=children.notes,
            ranks=watched.ranks if watched else (),
            prompt_cache=watched.prompt_cache if watched else None,
        )

    def count_restart(self, reason: str) -> None:
        """A new child will follow the old one."""
        self._restarts += 1
        self._services.on_restart(self._worker.name, reason)

    def note_change(self, old: State, event: Event, *, closing: bool) -> None:
        """The worker has left the state `old`, because of this event: say so. `closing`: it ends for good."""
        state, children = self._worker.state, self._children
        if isinstance(state, Ready):
            self.start_seconds = time.monotonic() - children.spawned_at
        self._since = time.time()
        write = log.warning if isinstance(state, Backoff | Failed) else log.info
        if self._is_no_news(closing=closing):
            write = log.debug
        because = getattr(event, "reason", None) or getattr(state, "reason", type(event).__name__)
        write(
            f"worker {state.label}",
            worker=self._worker.name,
            state=state.label,
            was=old.label,
            because=because,
            reason=self._told_reason(closing=closing),
            port=children.port,
        )
        self._services.on_change()

    def _is_no_news(self, *, closing: bool) -> bool:
        """Whether it is a turn that comes at once, or the end of a child whose worker ends."""
        state = self._worker.state
        at_once = isinstance(state, Queued) and not self._services.loads.ahead(self._worker.ticket)
        return at_once or (closing and isinstance(state, Stopping))

    def _told_reason(self, *, closing: bool) -> str:
        """What the log says with a new state."""
        match self._worker.state:
            case Ready():
                return f"after {self.start_seconds:.1f} s, on port {self._children.port}"
            case Starting():
                return f"on port {self._children.port}"
            case Stopped() if closing:
                return ""
            case _:
                return self._reason()

    def _reason(self) -> str:
        worker, room = self._worker, self._services.room
        in_memory = room.instead_of(worker)
        return why(
            worker.name,
            worker.state,
            ahead=self._services.loads.ahead(worker.ticket) if in_memory is None else room.before(worker),
            in_memory=in_memory,
            strained=room.strained,
            load=self._children.load() if isinstance(worker.state, Starting) else Load(),
            open_requests=self._usage.open,
            last=self._children.last_exit,
        )
