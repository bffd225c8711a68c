"""How much each worker may take of the memory that all of them share. Pure.

Rules:

1.  What has been given to all owners is at no time more than the whole.
2.  A worker is given what it can use (its weights, its cached prompts and HEADROOM), or what is left if that is
    less: it then serves all the same, but not all of its memory is wired.
3.  What was given is never taken back before the worker ends, as it may be in use. What a worker gives back goes to
    those that have less than they can use, in the order in which they came.

A worker of a `command` is not ours to limit, and is not in the book.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from draftd.protocol import HEADROOM, PROMPT_CACHE_SHARE, MemoryShare

MIN_PROMPT_CACHE = 2**28  # bytes: some conversations of a small model


@dataclass(slots=True)
class _Entry:
    """One worker. `weights` and `cache` in bytes; `given` is what it may wire."""

    weights: int
    cache: int
    fixed: bool  # whether the profile says how large the cache may be
    wanted: int
    tell: Callable[[MemoryShare], None]
    given: int = 0

    def share(self) -> MemoryShare:
        if self.fixed or self.given >= self.wanted:
            return MemoryShare(self.given, self.cache)
        room = self.given - self.weights - HEADROOM
        return MemoryShare(self.given, min(self.cache, max(MIN_PROMPT_CACHE, room)))


class MemoryBook:
    """See the module's docstring. `whole` is in bytes."""

    def __init__(self, whole: int) -> None:
        self._whole = whole
        self._entries: dict[Hashable, _Entry] = {}

    @property
    def left(self) -> int:
        """Bytes that nobody has been given."""
        return self._whole - sum(entry.given for entry in self._entries.values())

    def take(
        self,
        owner: Hashable,
        weights: int | None,
        prompt_cache: int | None,
        tell: Callable[[MemoryShare], None],
    ) -> None:
        """Give `owner` its share: `tell` is called now, and again whenever the share grows.

        `weights`: bytes of the models' weights; None if nobody knows, as before a download: then half of what is
        left is given. `prompt_cache`: bytes that cached prompts may take, if the profile says so.
        """
        self._entries.pop(owner, None)
        cache = self._whole // PROMPT_CACHE_SHARE if prompt_cache is None else prompt_cache
        wanted = self.left // 2 if weights is None else weights + cache + HEADROOM
        entry = _Entry(weights or 0, cache, prompt_cache is not None, wanted, tell)
        self._entries[owner] = entry
        self._give(entry)
        tell(entry.share())

    def release(self, owner: Hashable) -> None:
        """The worker's process is gone. Harmless for one that has nothing."""
        if self._entries.pop(owner, None) is None:
            return
        for entry in self._entries.values():
            if self._give(entry):
                entry.tell(entry.share())

    def _give(self, entry: _Entry) -> int:
        """Give as much of what it can use as is left; returns how much more it has got."""
        more = min(entry.wanted - entry.given, self.left)
        entry.given += more
        return more
