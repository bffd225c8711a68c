"""How each worker did in the last hour, in steps of ten seconds: bounded, in memory, and gone with the daemon.

A step has the median speed and the acceptance of the requests that ended in it, and the queue and the memory at its
end. Nothing is kept for a worker that is gone.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from draftd.telemetry.request_record import RequestRecord

STEP = 10.0  # seconds
MAX_STEPS = 360  # an hour


@dataclass(frozen=True, slots=True)
class Level:
    """A profile's worker at the end of a step: requests that wait or run, and bytes (None where not known)."""

    profile: str
    queue: int
    memory: int | None


@dataclass(frozen=True, slots=True)
class Point:
    """One step of a profile. Tokens per second, accepted ÷ proposed, requests, bytes; None where not known."""

    speed: float | None
    acceptance: float | None
    queue: int
    memory: int | None


@dataclass(slots=True)
class _Step:
    speeds: list[float] = field(default_factory=list)
    proposed: int = 0
    accepted: int = 0


class History:
    """`levels` says how things are now. `wall` is in epoch seconds. For the event loop's thread only."""

    def __init__(self, levels: Callable[[], Iterable[Level]], wall: Callable[[], float]) -> None:
        self._levels = levels
        self._wall = wall
        self._now: defaultdict[str, _Step] = defaultdict(_Step)
        self._points: dict[str, deque[Point | None]] = {}
        self.ended_at = 0.0  # when the last step ended, in epoch seconds
        self.steps = 0

    def add_all(self, records: Iterable[RequestRecord]) -> None:
        """These requests have ended."""
        for record in records:
            self.add(record)

    def add(self, record: RequestRecord) -> None:
        """A request has ended."""
        if record.profile is None:
            return
        step = self._now[record.profile]
        if record.tokens_per_second:
            step.speeds.append(record.tokens_per_second)
        step.proposed += record.proposed or 0
        step.accepted += record.accepted or 0

    def end_step(self) -> None:
        """Close a step, and begin the next."""
        levels = {level.profile: level for level in self._levels()}
        self.steps = min(self.steps + 1, MAX_STEPS)
        self._points = {name: self._of(name) for name in levels}
        for name, level in levels.items():
            self._points[name].append(_point(self._now[name], level))
        self._now.clear()
        self.ended_at = self._wall()

    def _of(self, name: str) -> deque[Point | None]:
        """The points of a profile so far; one that is new has none where others have theirs."""
        empty: list[Point | None] = [None] * (self.steps - 1)
        return self._points.get(name) or deque(empty, maxlen=MAX_STEPS)

    async def run(self) -> None:
        """Close a step every ten seconds, until cancelled."""
        while True:
            await asyncio.sleep(STEP)
            self.end_step()

    def as_json(self) -> dict[str, Any]:
        """All points, for the API: a list for each figure of a profile, oldest first, all of the same length."""
        return {
            "step_seconds": STEP,
            "ended_at": self.ended_at,
            "profiles": {
                name: {figure: [point and getattr(point, figure) for point in points] for figure in FIGURES}
                for name, points in self._points.items()
            },
        }


FIGURES = ("speed", "acceptance", "queue", "memory")


def _point(step: _Step, level: Level) -> Point:
    return Point(
        round(statistics.median(step.speeds), 2) if step.speeds else None,
        round(step.accepted / step.proposed, 4) if step.proposed else None,
        level.queue,
        level.memory,
    )
