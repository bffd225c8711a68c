"""Owns the workers: makes them what the profiles ask for, finds them by name, ends them all."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Mapping

import structlog

from draftd.errors import RequestError
from draftd.profiles import Profile
from draftd.protocol import CacheSize
from draftd.sharing import Group, groups
from draftd.workers.events import Close, Reconfigure, Start
from draftd.workers.machine import loads_before
from draftd.workers.plan import Action, Add, Remove, Replace, Update, plan
from draftd.workers.services import Services
from draftd.workers.states import Ready
from draftd.workers.status import RankStatus, WorkerStatus, of_members
from draftd.workers.watched import Watched
from draftd.workers.worker import Worker

log = structlog.get_logger("supervisor")


class Supervisor:
    """`tasks` runs the workers; leave its block only after `close`. `share` is for profiles that do not say
    whether they share.
    """

    def __init__(self, services: Services, tasks: asyncio.TaskGroup, *, share: bool) -> None:
        self._services = services
        self._tasks = tasks
        self._share = share
        self._wanted: Mapping[str, Profile] = {}
        self._groups: dict[str, Group] = {}  # by the worker's name
        self._workers: dict[str, Worker] = {}  # by their own name
        self._by_profile: dict[str, Worker] = {}
        self._served: dict[str, set[str]] = {}  # by the worker's name: profiles that it has ever served
        self._running: dict[Worker, asyncio.Task[None]] = {}

    def apply(self, wanted: Mapping[str, Profile]) -> list[str]:
        """Make the workers serve the profiles `wanted`; returns the names of the profiles that changed."""
        before, self._wanted = self._wanted, dict(wanted)
        gone = before.keys() - wanted.keys()
        changed = sorted(gone | {name for name in wanted if wanted[name] != before.get(name)})
        for action in plan(groups(wanted, share=self._share), self._groups):
            gone -= self._perform(action)
        self._by_profile = {
            name: self._workers[group.name] for group in self._groups.values() for name in group.names
        }
        for group in self._groups.values():
            self._served.setdefault(group.name, set()).update(group.names)
        self._forget(gone)
        log.info("profiles applied", changed=changed, workers=len(self._workers))
        return changed

    def _perform(self, action: Action) -> set[str]:
        """Carry out one action. Returns the profiles whose worker ends: they are forgotten once it has ended."""
        match action:
            case Remove(name):
                return self._remove(name)
            case Replace(name, group) | Update(name, group):
                self._hand_over(name, group, restart=isinstance(action, Replace))
            case Add(group):
                self._add(group)
        return set()

    def _remove(self, name: str) -> set[str]:
        left = set(self._groups.pop(name).names)
        worker = self._workers.pop(name)
        worker.post(Close(self._services.drain_timeout))
        self._running[worker].add_done_callback(lambda _: self._forget(left - self._wanted.keys()))
        return left

    def _hand_over(self, name: str, group: Group, *, restart: bool) -> None:
        del self._groups[name]
        worker = self._workers.pop(name)
        worker.name, worker.profiles = group.name, group.names
        self._groups[group.name], self._workers[group.name] = group, worker
        self._served.setdefault(group.name, set()).update(self._served[name])
        worker.post(Reconfigure(group.host, restart))

    def _add(self, group: Group) -> None:
        worker = Worker(group.host, self._services)
        worker.profiles = group.names
        self._groups[group.name], self._workers[group.name] = group, worker
        task = self._tasks.create_task(worker.run(), name=f"worker {group.name}")
        self._running[worker] = task
        task.add_done_callback(lambda _: self._running.pop(worker))
        if group.autostart:
            worker.post(Start(wanted=False))

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._services.on_gone(name)

    def worker(self, name: str) -> Worker:
        """The worker of a profile. Raises RequestError (404)."""
        try:
            return self._by_profile[name]
        except KeyError:
            raise RequestError(404, f"there is no profile '{name}'", code="profile_not_found") from None

    def shares_with(self, name: str) -> tuple[str, ...]:
        """The other profiles that a profile's worker serves. Raises RequestError (404)."""
        return self._groups[self.worker(name).name].others(name)

    def is_shared(self, name: str) -> bool:
        """Whether a profile's worker serves others too. Raises RequestError (404)."""
        return len(self._groups[self.worker(name).name].members) > 1

    def waiting_before(self, name: str) -> int:
        """How many requests come before a new one until a profile's worker is ready: those that wait for it, and
        for workers that load before it. 0 if it is ready. Raises RequestError (404).
        """
        worker = self.worker(name)
        if isinstance(worker.state, Ready):
            return 0
        first = (other for other in self._workers.values() if loads_before(other.state, worker.state))
        return worker.waiting + sum(other.waiting for other in first)

    def whose(self, worker: str, named: str | None) -> str:
        """Which profile a record of `worker` is about: `named`, if the worker has ever served it, else its host."""
        return named if named is not None and named in self._served.get(worker, ()) else worker

    def acceptance_pattern(self, worker: str) -> re.Pattern[str] | None:
        """The pattern of whole lines in a worker's log that report draft tokens; None if no line does."""
        known = self._workers.get(worker)
        pattern = known.profile.acceptance_pattern if known else None
        return re.compile(pattern) if pattern else None

    def engine_started(self, worker: str, *, accounting: bool) -> None:
        """The engine of a worker is up; `accounting` says whether it counts draft tokens."""
        if child := self._child_of(worker):
            child.accounting = accounting

    def models_loaded(self, worker: str, draft_refusal: str | None, batch_refusal: str | None = None) -> None:
        """The engine of a worker has loaded its models. The refusals say why nothing may be drafted with them, and
        why requests that are drafted do not share passes; None if they may and do.
        """
        if child := self._child_of(worker):
            child.draft_refusal, child.batch_refusal = draft_refusal, batch_refusal

    def progress(self, worker: str, used: int | None) -> None:
        """The engine of a worker makes progress with a request; `used` is its memory in bytes, if it said."""
        if child := self._child_of(worker):
            child.usage.progress()
            child.told_memory = child.told_memory if used is None else used

    def ranks_told(self, worker: str, ranks: tuple[RankStatus, ...]) -> None:
        """The launcher of a group has reported the state of its ranks."""
        if child := self._child_of(worker):
            child.ranks, child.ranks_told = ranks, time.monotonic()

    def cache_size(self, worker: str, size: CacheSize) -> None:
        """The engine of a worker tells how large its prompt cache is by now."""
        if child := self._child_of(worker):
            child.prompt_cache = size

    def _child_of(self, worker: str) -> Watched | None:
        known = self._workers.get(worker)
        return known.watched if known else None

    def snapshot(self) -> list[WorkerStatus]:
        """Every profile's worker now, in the order of the profiles' names."""
        rows = (
            row
            for name, group in self._groups.items()
            for row in of_members(self._workers[name].status(), group)
        )
        return sorted(rows, key=lambda row: row.name)

    def states(self) -> set[str]:
        """The states that workers are in. Costs nothing beside a `snapshot`, which reads the memory of each."""
        return {worker.state.label for worker in self._workers.values()}

    async def close(self, drain: float) -> None:
        """End every worker; open requests have `drain` seconds to finish. Returns when no child is left."""
        for worker in self._workers.values():
            worker.post(Close(drain))
        if self._running:
            await asyncio.wait(self._running.values())
