"""A child as its monitor sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from draftd.profiles import Profile
from draftd.protocol import CacheSize
from draftd.workers import memory
from draftd.workers.beginning import Beginning
from draftd.workers.status import RankStatus
from draftd.workers.usage import Usage


@dataclass(slots=True)
class Watched:
    """A child: what its monitor must know, and what was heard from it. `profile` is asked each time."""

    port: int
    profile: Callable[[], Profile]
    usage: Usage
    drain: float  # seconds that open requests get if it breaks a limit
    pid: int = 0
    beginnings: Callable[[], Sequence[Beginning]] = tuple  # what it may read ahead by now
    headers: Mapping[str, str] = field(default_factory=dict)  # that its engine wants with each request
    output: int = 0  # bytes
    said: bytes = b""  # the last of them
    told_memory: int = 0  # bytes, as the engine says; 0 if it has not said
    accounting: bool = False  # whether the engine counts draft tokens
    draft_refusal: str | None = None  # why nothing may be drafted with its models, if so
    batch_refusal: str | None = None  # why requests that are drafted do not share passes, if so
    prompt_cache: CacheSize | None = None  # the size of its engine's, as the engine says
    status: int | None = None  # of its latest answer to the readiness check
    answer: str = "nothing listens on its port"  # the same, for people
    ranks: tuple[RankStatus, ...] = ()  # of a group, as its launcher last reported
    ranks_told: float = 0.0  # when that was, in monotonic seconds

    @property
    def foreign(self) -> bool:
        """Whether it is a server other than ours."""
        return bool(self.profile().command)

    @property
    def family(self) -> bool:
        """Whether it may have descendants that matter."""
        return self.foreign or self.profile().distributed is not None

    @property
    def may_be_mute(self) -> bool:
        """Whether its silence is no bad sign: another server that works on a request may have no thread left for
        us, and an answer that it does not stream brings nothing for a while. `stall_timeout` says how long that may
        last.
        """
        return self.foreign and self.usage.open > 0

    def memory_here(self) -> int | None:
        """Bytes that it uses on this machine; None if that cannot be known."""
        return memory.used(self.pid, self.told_memory, family=self.family)

    def memory(self) -> int | None:
        """Bytes that it uses, including those of ranks on other machines; None if that cannot be known."""
        here = self.memory_here()
        return None if here is None else here + sum(rank.memory_bytes for rank in self.ranks if rank.host)

    def silent_rank(self, seconds: float) -> str:
        """In words, which rank of a group has been silent for longer; "" if none has, or nothing is known yet."""
        if not self.ranks:
            return ""
        since = time.monotonic() - self.ranks_told
        rank = max(self.ranks, key=lambda one: one.silent)
        if since > seconds:
            return f"the launcher of the ranks has been silent for {since:.0f} s"
        if rank.silent + since <= seconds:
            return ""
        where = f" on {rank.host}" if rank.host else ""
        return f"rank {rank.rank}{where} has been silent for {rank.silent + since:.0f} s"
