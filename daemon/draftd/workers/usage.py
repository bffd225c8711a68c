"""Requests and a worker: who waits for it, who uses it, and what a request is told that cannot wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from draftd.errors import WorkerError
from draftd.workers.states import Backoff, Failed, State, Stopped
from draftd.workers.status import LastExit

MAX_BACKOFF_WAIT = 10.0  # seconds of backoff that a new request waits out; beyond it, 503 with Retry-After


@dataclass(frozen=True, slots=True)
class Lease:
    """A ready child for one request. `progress` is to be called whenever something of the answer comes."""

    port: int
    progress: Callable[[], None]


@dataclass(slots=True)
class Usage:
    """Requests that wait for the child, and requests open on it. Changed in the event loop only."""

    waiting: int = 0
    open: int = 0
    memory: int = 0  # bytes that the engine says it uses, a GPU's included; 0 if it has not said
    _last: float = field(default_factory=time.monotonic)
    _progress: float = field(default_factory=time.monotonic)

    def touch(self) -> None:
        """Somebody came or went."""
        self._last = time.monotonic()

    def progress(self) -> None:
        """The child got on with a request: bytes of an answer came, or word of a prompt."""
        self._progress = time.monotonic()

    def silent_seconds(self) -> float:
        """How long an open request has waited for any progress; 0 while none is open."""
        return time.monotonic() - self._progress if self.open else 0.0

    def idle_seconds(self) -> float:
        """How long nobody has used the worker; 0 while somebody does."""
        return 0.0 if self.waiting or self.open else time.monotonic() - self._last


def refusal(
    name: str, state: State, last_exit: LastExit | None, now: float, *, witnessed_start: bool
) -> WorkerError | None:
    """The error for a request that would wait in this state; None if waiting is right.

    A request waits for a start, but not for a second one: after a failed start that it witnessed, or a long
    backoff ahead, it is told when to come again.
    """
    because = f": {last_exit}" + "".join(f"\n{line}" for line in last_exit.lines) if last_exit else ""
    if isinstance(state, Failed):
        text = f"'{name}' failed {len(state.failures)} times and was given up; 'draftd restart {name}' tries again"
        return WorkerError(text + because, code="worker_failed", retry=False)
    if isinstance(state, Stopped) and not state.on_demand:
        text = f"'{name}' is stopped; 'draftd start {name}' starts it"
        return WorkerError(text, code="worker_stopped", retry=False)
    if isinstance(state, Backoff):
        remaining = max(0.0, state.deadline - now)
        if witnessed_start or remaining > MAX_BACKOFF_WAIT:
            return WorkerError(f"'{name}' is being restarted{because}", retry_after=remaining + 1)
    return None
