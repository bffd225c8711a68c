"""Owns the workers: brings them in line with the profiles, finds them by name, ends them all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from daemon.errors import RequestError
from daemon.profiles import Profile
from daemon.workers.plan import Add, Remove, Replace, Update, plan
from daemon.workers.services import Services
from daemon.workers.states import Start
from daemon.workers.status import WorkerStatus
from daemon.workers.worker import Worker

log = structlog.get_logger("supervisor")


class Supervisor:
    """`tasks` runs the workers; leave its block only after `close`."""

    def __init__(self, services: Services, tasks: asyncio.TaskGroup) -> None:
        self._services = services
        self._tasks = tasks
        self._workers: dict[str, Worker] = {}
        self._wanted: dict[str, Profile] = {}
        self._running: set[asyncio.Task[None]] = set()

    def apply(self, wanted: Mapping[str, Profile]) -> list[str]:
        """Bring the workers in line with `wanted`; returns the names of what changed."""
        actions = plan(wanted, self._wanted)
        for action in actions:
            match action:
                case Remove(name):
                    self._workers.pop(name).close(self._services.drain_timeout)
                case Replace(profile):
                    self._workers[profile.name].reconfigure(profile, restart=True)
                case Update(profile):
                    self._workers[profile.name].reconfigure(profile, restart=False)
                case Add(profile):
                    self._add(profile)
        self._wanted = dict(wanted)
        changed = [action.name if isinstance(action, Remove) else action.profile.name for action in actions]
        log.info("profiles applied", changed=changed, workers=len(self._workers))
        return changed

    def _add(self, profile: Profile) -> None:
        worker = self._workers[profile.name] = Worker(profile, self._services)
        task = self._tasks.create_task(worker.run(), name=f"worker {profile.name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: self._ended(profile.name))
        if profile.autostart:
            worker.post(Start())

    def _ended(self, name: str) -> None:
        if name not in self._workers:  # else a new worker has taken the name
            self._services.on_gone(name)

    def worker(self, name: str) -> Worker:
        """The worker of a profile. Raises RequestError (404)."""
        try:
            return self._workers[name]
        except KeyError:
            raise RequestError(404, f"there is no profile '{name}'", code="profile_not_found") from None

    def progress(self, name: str, memory: int | None) -> None:
        """The engine of `name` gets on with a request, and uses so many bytes of memory."""
        if name in self._workers:
            self._workers[name].engine_progress(memory)

    def snapshot(self) -> list[WorkerStatus]:
        """Every worker now, in the order of their names."""
        return [self._workers[name].status() for name in sorted(self._workers)]

    async def close(self, drain: float) -> None:
        """End every worker, leaving `drain` seconds to open requests; returns when no child is left."""
        for worker in self._workers.values():
            worker.close(drain)
        if self._running:
            await asyncio.wait(self._running)
