"""What follows a worker's failure: another start after a delay, or none. Pure.

Failures older than the window are forgotten; after `max_failures` within it the worker is given up. After fewer,
it is started again after a delay that doubles each time: almost at once after a single failure of a child that had
been ready, as clients are waiting; after the longest delay if the same load would bring the same failure again.
"""

from __future__ import annotations

from draftd.profile_tables import RestartPolicy
from draftd.workers.events import GPU_MEMORY, GPU_TIMEOUT, OOM

# The share by which a delay is lengthened at most: workers that were killed together do not return together.
JITTER = 0.2
NO_QUICK_RETRY = frozenset({GPU_MEMORY, GPU_TIMEOUT, OOM})


def after_failure(
    failures: tuple[float, ...],
    reason: str,
    now: float,
    restart: RestartPolicy,
    *,
    was_ready: bool,
    jitter: float,
) -> tuple[tuple[float, ...], float | None]:
    """The failures that count from now on, and the seconds until the next start; None if there is none.

    `failures` and `now` are in monotonic seconds; `jitter` is in [0, 1).
    """
    recent = (*(at for at in failures if now - at < restart.window), now)
    if len(recent) >= restart.max_failures:
        return recent, None
    delay = backoff_delay(len(recent), restart, was_ready=was_ready, jitter=jitter)
    return recent, max(delay, restart.max_delay) if reason in NO_QUICK_RETRY else delay


def backoff_delay(failures: int, restart: RestartPolicy, *, was_ready: bool, jitter: float) -> float:
    """Seconds until the next start after the given number of failures; `jitter` is in [0, 1)."""
    if failures <= 1 and was_ready:
        base = restart.stable_delay
    else:
        base = min(restart.initial_delay * 2.0 ** min(failures - 1, 60), restart.max_delay)
    return base * (1 + JITTER * jitter)
