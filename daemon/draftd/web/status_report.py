"""What the daemon says about itself: the bodies of /api/status and /api/events, and gauges."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from draftd import __version__
from draftd.peers.condition import New, Out
from draftd.peers.fleet import Fleet
from draftd.peers.machines import Peer
from draftd.pressure import Pressure
from draftd.protocol import PromptStore
from draftd.stored_folder import FolderSize, folder_size
from draftd.telemetry.history import Level
from draftd.telemetry.metrics import Metrics, Recent
from draftd.telemetry.speculation import Speculation
from draftd.telemetry.worker_samples import WorkerSample
from draftd.web.proxy import Proxy
from draftd.web.router import Router
from draftd.workers.status import SpareStatus, WorkerStatus, describe_code
from draftd.workers.supervisor import Supervisor
from draftd.workers.warm_spare import Starter


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """Asks the parts of the daemon whenever it is asked itself. `started`: when the daemon started, in epoch
    seconds. `budget`: bytes that all workers together may take. `look_at_pressure` says how short memory is.
    `store`: where workers store prompts, None if they do not. `reload_problem` says why the files on disk are not
    in force, None if they are. `profiles_read`: when they were read, in epoch seconds. `captures`: whether the
    contents of requests are kept; `bench`: how far the last bench has got, None if there was none.
    """

    supervisor: Supervisor
    router: Router
    proxy: Proxy
    metrics: Metrics
    starter: Starter
    started: float
    budget: int
    look_at_pressure: Callable[[], Pressure | None]
    store: PromptStore | None
    reload_problem: Callable[[], str | None]
    fleet: Fleet
    bench: Callable[[], dict[str, Any] | None]
    profiles_read: Callable[[], float]
    captures: Callable[[], bool]

    def status(self) -> dict[str, Any]:
        """The body of /api/status."""
        default = self.router.table.default
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": iso(self.started),
            "default_model": default.name if default else None,
            "workers": self.workers(),
            "peers": [peer(one) for one in self.fleet.peers],
            "warm_spare": spare(self.starter.status()),
            "memory": memory(self.budget, self.look_at_pressure()),
            "sharing": self.router.table.profiles.sharing or None,
            "stored_prompts": stored(self.stored_prompts(), self.store),
            "reload_problem": self.reload_problem(),
            "bench": self.bench(),
            "profiles_read": self.profiles_read(),
            "capture": self.captures(),
        }

    def levels(self) -> list[Level]:
        """The queue and the memory of every profile's worker, for the history; a shared worker counts once."""
        rows = self.supervisor.snapshot()
        admissions = [self.proxy.admission(row.name) for row in rows]
        return [
            Level(row.name, one.depth + one.active if row.name == row.worker else 0, row.memory_bytes)
            for row, one in zip(rows, admissions, strict=True)
        ]

    def live(self) -> dict[str, Any]:
        """The status as /api/events has it, with the figures of the last requests."""
        status = self.status()
        for row in status["workers"]:
            name = row["name"]
            row.update(live(self._at_work_on(name), self.metrics.recent(name)))
        return status

    def _at_work_on(self, name: str) -> int:
        """Requests that a profile's worker works on: some that have a place may wait until it is ready."""
        return self.proxy.admission(name).active - self.supervisor.worker(name).waiting

    def workers(self) -> list[dict[str, Any]]:
        """Every profile's worker as /api/status has it."""
        return [
            worker(one, self.proxy.admission(one.name).depth + one.waiting, self.metrics)
            for one in self.supervisor.snapshot()
        ]

    def samples(self) -> list[WorkerSample]:
        """Every profile's worker for a scrape of /metrics."""
        return [
            WorkerSample(
                one.name,
                one.state,
                one.memory_bytes,
                self.proxy.admission(one.name).depth + one.waiting if one.name == one.worker else None,
                one.start_seconds,
                one.accounting,
                one.draft_refusal is not None,
                one.prompt_cache,
            )
            for one in self.supervisor.snapshot()
        ]

    def free_memory(self) -> int:
        """Bytes of the budget that no worker uses now."""
        taken = {
            row.worker: row.memory_bytes or 0 for row in self.supervisor.snapshot() if row.name == row.worker
        }
        return self.budget - sum(taken.values())

    def pressure(self) -> int:
        """How short the machine is of memory, for a scrape of /metrics; 0 if the system does not say."""
        return self.look_at_pressure() or 0

    def stored_prompts(self) -> FolderSize:
        """What all workers have stored of prompts; nothing if they do not."""
        return folder_size(Path(self.store.folder)) if self.store else FolderSize()

    def spare_memory(self) -> int:
        """Bytes of the warm spare; 0 without one."""
        spare = self.starter.status()
        return (spare.memory_bytes or 0) if spare else 0


def worker(status: WorkerStatus, queue: int, metrics: Metrics) -> dict[str, Any]:
    """One profile's worker in /api/status. Times are ISO 8601 in UTC."""
    acceptance = metrics.acceptance(status.name)
    last = status.last_exit
    return {
        "name": status.name,
        "worker": status.worker,
        "shares_with": list(status.shares_with),
        "state": status.state,
        "pid": status.pid,
        "port": status.port,
        "model": status.model,
        "draft_model": status.draft_model,
        "drafters": list(status.drafters),
        "num_draft_tokens": status.num_draft_tokens,
        "auto_draft": status.auto_draft,
        "draft_refusal": status.draft_refusal,
        "batch_refusal": status.batch_refusal if status.drafters else None,
        "since": iso(status.since),
        "reason": status.reason,
        "due": None if status.due is None else iso(status.due),
        "restarts": status.restarts,
        "last_exit": last
        and {
            "code": last.code,
            "reason": last.reason,
            "meaning": describe_code(last.code),
            "at": iso(last.at),
            "lines": list(last.lines),
        },
        "memory_bytes": status.memory_bytes,
        "ranks": [
            {"rank": one.rank, "host": one.host, "pid": one.pid, "memory_bytes": one.memory_bytes}
            for one in status.ranks
        ],
        "start_seconds": status.start_seconds,
        "queue": queue,
        "requests": metrics.requests(status.name),
        "acceptance": asdict(acceptance),
        "speculation": speculation(metrics.speculation(status.name)),
        "tokens_per_second": metrics.tokens_per_second(status.name),
        "prompt_cache": metrics.reuse(status.name).told(status.prompt_cache),
        "notes": list(status.notes),
    }


def peer(one: Peer) -> dict[str, Any]:
    """A peer in /api/status. Times are ISO 8601 in UTC; `requests` are ours there, by what became of them.
    The `open` in `load` counts those of everybody, and is as old as the last answer of the peer.
    """
    state, epoch = one.condition, time.time() - time.monotonic()
    out = state if isinstance(state, Out) else None
    speeds = {name: one.served(name).measures.writes for name in one.known.models}
    return {
        "name": one.name,
        "url": one.table.url,
        "weight": one.weight,
        "found": one.found,
        "state": state.label,
        "reason": out.reason if out else "",
        "since": None if isinstance(state, New) else iso(epoch + state.since),
        "due": iso(epoch + out.due) if out else None,
        "is_draftd": one.known.own,
        "last_failure": one.last_failure and {"at": iso(one.last_failure[0]), "reason": one.last_failure[1]},
        "models": list(one.known.models),
        "load": {
            name: {"state": model.state, "open": one.open_for(name), "slots": model.slots}
            for name, model in one.known.models.items()
        },
        "active": one.open,
        "requests": dict(one.outcomes),
        "tokens_per_second": {name: round(speed, 1) for name, speed in speeds.items() if speed},
    }


def speculation(known: Speculation) -> dict[str, Any]:
    """How drafting went: by position and by draft length, in lists that begin at 1. Costs are in seconds."""
    positions = range(1, max(known.proposed, default=0) + 1)
    return {
        "proposed_by_position": [known.proposed[position] for position in positions],
        "accepted_by_position": [known.accepted[position] for position in positions],
        "rounds_by_draft_length": [known.lengths[length] for length in positions],
        "requests_by_rule": dict(known.rules),
        "by_drafter": {
            name: {"proposed": known.proposed_by[name], "accepted": known.accepted_by[name]}
            for name in sorted(known.proposed_by)
        },
        "costs": known.costs and asdict(known.costs),
        "speedup_estimate": known.speedup(),
    }


def spare(status: SpareStatus | None) -> dict[str, Any] | None:
    """The warm spare in /api/status; None if there is none."""
    return asdict(status) if status else None


def memory(budget: int, known: Pressure | None) -> dict[str, Any]:
    """The machine's memory in /api/status: bytes that all workers together may take, and how short it is now."""
    return {"budget_bytes": budget, "pressure": known.name.lower() if known else None}


def stored(size: FolderSize, store: PromptStore | None) -> dict[str, Any] | None:
    """The stored prompts of all workers in /api/status; None where none are stored."""
    return {**asdict(size), "limit_bytes": store.max_bytes} if store else None


def live(active: int, recent: Recent) -> dict[str, Any]:
    """What /api/events adds to a worker's status: how many requests it works on, and figures of the last ones."""
    return {"active": active, "recent": asdict(recent)}


def iso(epoch: float) -> str:
    """Epoch seconds as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds")
