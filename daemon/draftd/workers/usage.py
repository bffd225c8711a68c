"""Requests and their worker: how many wait for it, how many it serves, and the error for one that cannot wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from draftd.errors import WorkerError
from draftd.workers.states import Backoff, Failed, Queued, State, Stopped
from draftd.workers.status import LastExit

MAX_QUEUED_WAIT = 600.0  # seconds that a request waits for others to load, or to make room
MAX_BACKOFF_WAIT = 10.0  # seconds of backoff that a new request waits out; beyond it, 503 with Retry-After


class Lease(msgspec.Struct, frozen=True, eq=False):
    """A ready child for one request, which must carry the `headers`. Call `progress` whenever a part of the answer
    arrives. `child` is the child's number.
    """

    port: int
    headers: Mapping[str, str]
    child: int
    progress: Callable[[], None]


@dataclass(slots=True)
class Usage:
    """Requests that wait for the child, and requests open on it. Changed in the event loop only."""

    waiting: int = 0
    open: int = 0
    _asked: asyncio.Event | None = None  # there is one while somebody waits for it
    _last: float = field(default_factory=time.monotonic)
    _progress: float = field(default_factory=time.monotonic)

    @property
    def busy(self) -> bool:
        """Whether somebody uses the worker, or waits for it."""
        return self.waiting > 0 or self.open > 0

    def ask(self) -> None:
        """A request has come."""
        if self._asked is not None:
            self._asked.set()
            self._asked = None

    @contextmanager
    def waits(self) -> Iterator[None]:
        """While a request that has come waits for the child."""
        self.ask()
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            self._last = time.monotonic()

    def begin(self) -> None:
        """The child serves one more request, until `end`."""
        self.open += 1
        self.progress()

    def end(self) -> None:
        """It serves one request less."""
        self.open -= 1
        self._last = time.monotonic()

    def progress(self) -> None:
        """The child made progress with a request: bytes of an answer came, or the engine said so."""
        self._progress = time.monotonic()

    def silent_seconds(self) -> float:
        """How long an open request has waited for any progress; 0 while none is open."""
        return time.monotonic() - self._progress if self.open else 0.0

    def idle_seconds(self) -> float:
        """How long nobody has used the worker; 0 while somebody does."""
        return 0.0 if self.busy else time.monotonic() - self._last

    def until_asked(self) -> Coroutine[None, None, bool]:
        """What ends when the next request after this call comes."""
        self._asked = self._asked or asyncio.Event()
        return self._asked.wait()

    async def until_idle(self, seconds: float) -> None:
        """Return when nobody has used the worker for so many seconds; that is looked at now and then."""
        while (idle := self.idle_seconds()) < seconds:  # noqa: ASYNC110 - most of it is a wait for time to pass
            await asyncio.sleep(seconds - idle)


def refusal(
    name: str, state: State, last_exit: LastExit | None, now: float, *, waited: float, witnessed_start: bool
) -> WorkerError | None:
    """The error for a request that would wait in this state; None if waiting is right.

    A request waits for one start, not for a second one: if it has seen a start fail, or if the backoff is long, it
    is told when to try again. `now` is in monotonic seconds, `waited` the seconds that the request has waited.
    """
    because = f": {last_exit}" + "".join(f"\n{line}" for line in last_exit.lines) if last_exit else ""
    if isinstance(state, Failed):
        text = f"'{name}' failed {len(state.failures)} times and was given up; 'draftd restart {name}' tries again"
        return WorkerError(text + because, code="worker_failed", retry=False)
    if isinstance(state, Stopped) and not state.on_demand:
        text = f"'{name}' is stopped; 'draftd start {name}' starts it"
        return WorkerError(text, code="worker_stopped", retry=False)
    if isinstance(state, Queued) and waited >= MAX_QUEUED_WAIT:
        text = f"'{name}' has waited {waited:.0f} s for room in memory and its turn to load"
        return WorkerError(text, code="no_room", retry_after=MAX_BACKOFF_WAIT)
    if isinstance(state, Backoff):
        remaining = max(0.0, state.deadline - now)
        if witnessed_start or remaining > MAX_BACKOFF_WAIT:
            return WorkerError(f"'{name}' is being restarted{because}", retry_after=remaining + 1)
    return None
