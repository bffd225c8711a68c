"""The bodies of /v1/models and /api/status. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from draftd.profiles import Profile
from draftd.telemetry.metrics import Metrics, Recent
from draftd.telemetry.speculation import Speculation
from draftd.workers.spare import SpareStatus
from draftd.workers.status import WorkerStatus, describe_code


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
        "num_draft_tokens": status.num_draft_tokens,
        "auto_draft": status.auto_draft,
        "since": iso(status.since),
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
        "start_seconds": status.start_seconds,
        "queue": queue,
        "requests": metrics.requests(status.name),
        "acceptance": asdict(acceptance),
        "speculation": speculation(metrics.speculation(status.name)),
        "tokens_per_second": metrics.tokens_per_second(status.name),
        "notes": list(status.notes),
    }


def speculation(known: Speculation) -> dict[str, Any]:
    """How drafting went: by position and by draft length, each a list that begins with 1; costs in seconds."""
    positions = range(1, max(known.proposed, default=0) + 1)
    return {
        "proposed_by_position": [known.proposed[position] for position in positions],
        "accepted_by_position": [known.accepted[position] for position in positions],
        "rounds_by_draft_length": [known.lengths[length] for length in positions],
        "requests_by_rule": dict(known.rules),
        "costs": known.costs and asdict(known.costs),
        "speedup_estimate": known.speedup(),
    }


def spare(status: SpareStatus | None) -> dict[str, Any] | None:
    """The warm spare in /api/status; None if there is none."""
    return asdict(status) if status else None


def live(active: int, recent: Recent) -> dict[str, Any]:
    """What /api/events tells of a worker beside its status: requests it works on, and the last ones' figures."""
    return {"active": active, "recent": asdict(recent)}


def model(profile: Profile, created: int) -> dict[str, Any]:
    """One entry of /v1/models. `created` is epoch seconds."""
    return {"id": profile.name, "object": "model", "created": created, "owned_by": "draftd"}


def models(profiles: Iterable[Profile], created: int) -> dict[str, Any]:
    """The body of /v1/models."""
    return {"object": "list", "data": [model(profile, created) for profile in profiles]}


def iso(epoch: float) -> str:
    """Epoch seconds as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds")
