"""Time limits that do not run out while the machine sleeps.

On a Mac uvloop's timers go on while the machine sleeps, and `time.monotonic` stands still: when it wakes, the
loop's clock is hours ahead, and a limit of 15 minutes is over at once, though not one of them was spent awake. So
whatever limits somebody's time is set by this module: when a timer fires, the monotonic clock has the last word. A
pause between two looks may be an `asyncio.sleep`, since one look too early does no harm.

Nor do they run out while this process is held up, by a debugger or a machine that swaps. uvloop calls timers before
it reads, so that what has come in time would be taken for late. A timer that fires late gives it a turn first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

EARLY = 0.001  # seconds that a timer may fire too early: a loop counts in whole milliseconds
LATE = 0.1  # seconds after its time at which a timer shows that the loop was held up
TURN = 0.05  # seconds in which the loop then takes in what has come


class Timer:
    """Calls once, when `seconds` have passed by the monotonic clock. For the event loop's thread."""

    __slots__ = ("_call", "_due", "_handle", "_late", "_loop")

    def __init__(self, seconds: float, call: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = time.monotonic() + seconds
        self._late = False  # whether it has fired late once: a second time it calls
        self._call = call
        self._handle = self._loop.call_later(seconds, self._fire)

    def cancel(self) -> None:
        """Do not call. Harmless for a timer that has."""
        self._handle.cancel()

    def _fire(self) -> None:
        left = self._due - time.monotonic()
        if left < -LATE and not self._late:
            self._late, left = True, TURN
        if left > EARLY:
            self._handle = self._loop.call_later(left, self._fire)
        else:
            self._call()


class Limit:
    """In place of `asyncio.timeout`: raises TimeoutError when the block has taken `seconds`."""

    __slots__ = ("_seconds", "_timeout", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._timer = Timer(self._seconds, self._end)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _end(self) -> None:
        self._timeout.reschedule(0.0)  # long past


def limit(seconds: float) -> Limit:
    """Limits the seconds that a block may take: enter it with `async with`."""
    return Limit(seconds)


async def wait(tasks: Iterable[asyncio.Future[Any]], seconds: float, *, first: bool = False) -> None:
    """Return when all of these have ended, or with `first` one of them, or when `seconds` have passed.

    None of them is cancelled.
    """
    until = asyncio.FIRST_COMPLETED if first else asyncio.ALL_COMPLETED
    due, left, pending = time.monotonic() + seconds, seconds, set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, timeout=left, return_when=until)
        left = due - time.monotonic()
        if left <= EARLY or (first and done):
            return
