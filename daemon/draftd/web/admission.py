"""Who may use a worker now: first come, first served, in a bounded queue that a client leaves when it goes.

A drafting mlx_lm.server takes one request at a time, and its own queue is one that nobody can leave. So the queue
is kept here, and the worker never has more requests than it works on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

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

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Wait for a slot and hold it; yields the seconds waited. Raises WorkerError (429) if the queue is full."""
        began = time.monotonic()
        await self._acquire()
        admitted = time.monotonic()
        try:
            yield admitted - began
        finally:
            self._active -= 1
            self._note(time.monotonic() - admitted)
            self.refresh()

    def _note(self, seconds: float) -> None:
        mean = seconds if self._mean is None else self._mean
        self._mean = mean + NEWEST_WEIGHT * (seconds - mean)

    def _retry_after(self, slots: int) -> float:
        """Seconds until there may be a place in a full queue: until one of the requests being served has ended."""
        if self._mean is None:
            return FIRST_RETRY_AFTER
        return min(max(1.0, self._mean / max(1, slots)), MAX_RETRY_AFTER)

    async def _acquire(self) -> None:
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
        slots, _ = self._limits()
        while self._queue and self._active < slots:
            turn = self._queue.popleft()
            if not turn.cancelled():  # cancelled: its task has left, but has not run yet to say so
                self._active += 1
                turn.set_result(None)
