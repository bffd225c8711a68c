"""Whether the system has just killed a process because memory was short.

Linux counts such kills, for all processes of the machine together. A worker that ended by SIGKILL just as the count
grew was one of them. macOS does not count them: there the memory pressure at that time has to tell.
"""

from __future__ import annotations

import re
from pathlib import Path

COUNTERS = Path("/proc/vmstat")
_OOM_KILL = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
WORDS = "the system killed it because memory was short: a smaller model, context or `memory_budget` helps"


def count_kills() -> int | None:
    """How many processes the kernel has killed for lack of memory; None where it does not say."""
    try:
        found = _OOM_KILL.search(COUNTERS.read_text("ascii"))
    except (OSError, ValueError):
        return None
    return int(found[1]) if found else None


class KernelKills:
    """Knows the count of a moment ago, as long as `refresh` is called now and then."""

    def __init__(self) -> None:
        self._before = self._last = count_kills()

    def refresh(self) -> None:
        """Forget the count from before the last call."""
        self._before, self._last = self._last, count_kills()

    def has_grown(self) -> bool | None:
        """Whether the count has grown since the call before the last one; None where there is none."""
        now = count_kills()
        return None if now is None or self._before is None else now > self._before
