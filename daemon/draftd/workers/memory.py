"""How much memory a worker uses."""

from __future__ import annotations

import psutil

from draftd.workers.process import members


def resident(pid: int, *, family: bool) -> int | None:
    """Resident bytes of the process, and with `family` of its descendants.

    None if it is gone, or if there is no descriptor left to look with.
    """
    try:
        return sum(member.memory_info().rss for member in members(pid, family=family))
    except (psutil.Error, OSError):
        return None


def used(pid: int, told: int, *, family: bool) -> int | None:
    """Bytes that a child uses: what is resident, or what its engine has told (a GPU's memory) if that is more."""
    seen = resident(pid, family=family)
    return None if seen is None else max(seen, told)
