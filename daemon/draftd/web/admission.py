"""Who may use a worker now: first come, first served, in a bounded queue that a client leaves when it goes.

A drafting mlx_lm.server takes one request at a time, and its own queue is one that nobody can leave. So the queue
is kept here, and the worker never has more requests than it works on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from draftd.errors import WorkerError

FIRST_RETRY_AFTER = 5.0  # seconds; a guess as long as no request has been served
MAX_RETRY_AFTER = 60.0  # seconds
NEWEST_WEIGHT = 0.2  # of the newest request in the moving average of how long they take


class Admission:
    """The slots of one worker. `limits()` returns (slots, length of the queue), and may change with a reload."""

    def __init__(self, limits: Callable[[], tuple[int, int]]) -> None:
        self._limits = limits
        self._active = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._mean: float | None = None  # seconds that a slot was held

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def active(self) -> int:
        """Requests that hold a slot."""
        return self._active

    @property
    def takes(self) -> float | None:
        """The seconds that a request holds a slot, as a mean; None as long as none has."""
        return self._mean

    @property
    def ahead(self) -> int:
        """How many requests have to leave the queue or a slot before a request that comes now is served."""
        slots, _ = self._limits()
        return 0 if self._active < slots and not self._queue else len(self._queue) + 1

    def slot(self) -> _Slot:
        """Wait for a slot and hold it while the block runs, which gets the seconds waited. Raises WorkerError (429)
        if the queue is full.
        """
        return _Slot(self)

    def release(self, seconds: float) -> None:
        """Give a slot back that was held for so long."""
        self._active -= 1
        mean = seconds if self._mean is None else self._mean
        self._mean = mean + NEWEST_WEIGHT * (seconds - mean)
        self.refresh()

    def _retry_after(self, slots: int) -> float:
        """Seconds until there may be a place in a full queue: until one of the requests being served has ended."""
        if self._mean is None:
            return FIRST_RETRY_AFTER
        return min(max(1.0, self._mean / max(1, slots)), MAX_RETRY_AFTER)

    async def acquire(self) -> None:
        """Wait for a slot; `release` it. Raises as `slot` does."""
        self.refresh()  # a reload may have changed the limits; now nobody waits while a slot is free
        slots, max_queue = self._limits()
        if self._active < slots:
            self._active += 1
            return
        if len(self._queue) >= max_queue:
            text = f"{len(self._queue)} requests are waiting already, and no more can"
            raise WorkerError(text, status=429, code="queue_full", retry_after=self._retry_after(slots))
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # admitted at the very moment of leaving
                self._active -= 1
            with suppress(ValueError):
                self._queue.remove(turn)
            self.refresh()
            raise

    def refresh(self) -> None:
        """Let in as many as the limits allow; call it when a reload may have raised them."""
        while self._queue and self._active < self._limits()[0]:
            turn = self._queue.popleft()
            if not turn.cancelled():  # cancelled: its task has left, but has not run yet to say so
                self._active += 1
                turn.set_result(None)


class _Slot:
    """What `slot` returns. (A generator would take ten times as long to enter and leave.)"""

    __slots__ = ("_admission", "_admitted")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def __aenter__(self) -> float:
        began = time.monotonic()
        await self._admission.acquire()
        self._admitted = time.monotonic()
        return self._admitted - began

    async def __aexit__(self, *_: object) -> None:
        self._admission.release(time.monotonic() - self._admitted)
