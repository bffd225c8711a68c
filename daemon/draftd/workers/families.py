"""The processes of a child: its own, and for other servers than ours those of its descendants.

To find descendants one has to go through all processes of the machine, several milliseconds in which the daemon
does nothing else. So one look serves all families for a while: for MIN_AGE seconds, or for PAUSE times as long as
the look took. Until then a process that has come meanwhile is not seen.
"""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import suppress

import psutil

MIN_AGE, MAX_AGE = 0.5, 10.0  # seconds
PAUSE = 50

Children = dict[int, list[psutil.Process]]  # by the number of their parent


class Families:
    """What was last seen of the descendants of this process. For any thread: what was seen is never changed."""

    def __init__(self) -> None:
        self._seen: Children = {}
        self._good_until = 0.0  # monotonic seconds

    def members(self, pid: int, *, fresh: bool) -> list[psutil.Process]:
        """The process and its descendants, which are looked for now if it is to be `fresh`. Raises psutil.Error."""
        process = psutil.Process(pid)
        if fresh or time.monotonic() >= self._good_until:
            self._look()
        return [process, *self._descendants(pid)]

    def _look(self) -> None:
        began = time.monotonic()
        seen: Children = defaultdict(list)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                seen[process.ppid()].append(process)
        now = time.monotonic()
        self._seen, self._good_until = dict(seen), now + min(MAX_AGE, max(MIN_AGE, PAUSE * (now - began)))

    def _descendants(self, pid: int) -> list[psutil.Process]:
        found: dict[int, psutil.Process] = {}
        parents = [pid]
        while parents:
            for child in self._seen.get(parents.pop(), ()):
                if (
                    child.pid not in found and child.is_running()
                ):  # else its number may be somebody else's by now
                    found[child.pid] = child
                    parents.append(child.pid)
        return list(found.values())


_families = Families()


def members(pid: int, *, family: bool, fresh: bool = False) -> list[psutil.Process]:
    """The process, and with `family` its descendants; see the module for `fresh`. Raises psutil.Error.

    Our engine is a single process, and needs no such look.
    """
    return _families.members(pid, fresh=fresh) if family else [psutil.Process(pid)]
