"""Keeps a run within the ports that the system hands out by itself.

Each request that a proxy passes on is a connection of its own to the stub, and a closed connection keeps its port
for a while. macOS has 16,384 such ports and keeps them for 30 s; Linux gives them out again at once on loopback.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable

SHARE = 0.8  # of the ports: others need some too


class PortBudget:
    """`ports` can be in use or kept at a time; each is kept for `kept` seconds after its connection."""

    def __init__(
        self,
        ports: int,
        kept: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._limit, self._kept = int(ports * SHARE), kept
        self._clock, self._sleep = clock, sleep
        self._taken: deque[tuple[float, int]] = (
            deque()
        )  # when they are free again at the earliest, and how many

    async def take(self, count: int) -> None:
        """Wait until so many connections can be opened. Raises ValueError if they never can."""
        if count > self._limit:
            raise ValueError(f"{count} connections are more than the {self._limit} ports that may be used")
        while self._in_use() + count > self._limit:
            await self._sleep(self._taken[0][0] - self._clock())
        self._taken.append((self._clock() + self._kept, count))

    def given_back(self) -> None:
        """The connections of the last `take` have just been closed."""
        self._taken.append((self._clock() + self._kept, self._taken.pop()[1]))

    def _in_use(self) -> int:
        while self._taken and self._taken[0][0] <= self._clock():
            self._taken.popleft()
        return sum(count for _, count in self._taken)


def budget() -> PortBudget | None:
    """What this machine has; None where there is no need to care."""
    if sys.platform != "darwin":
        return None
    first, last, msl = map(_sysctl, ("ip.portrange.first", "ip.portrange.last", "tcp.msl"))
    return PortBudget(last - first + 1, 2 * msl / 1000)


def _sysctl(name: str) -> int:
    return int(subprocess.run(["sysctl", "-n", f"net.inet.{name}"], capture_output=True, check=True).stdout)
