"""How much memory a worker uses."""

from __future__ import annotations

import psutil

from draftd.workers.process import members


def resident(pid: int, *, family: bool) -> int | None:
    """Resident bytes of the process, and with `family` of its descendants; None if it is gone."""
    try:
        return sum(member.memory_info().rss for member in members(pid, family=family))
    except psutil.Error:
        return None
