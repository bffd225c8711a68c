"""A child as its monitor sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from draftd.profiles import Profile
from draftd.protocol import CacheSize
from draftd.workers import memory
from draftd.workers.beginning import Beginning
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

    @property
    def family(self) -> bool:
        """Whether it may have descendants that matter."""
        return bool(self.profile().command)

    @property
    def may_be_mute(self) -> bool:
        """Whether its silence is no bad sign: another server that works on a request may have no thread left for
        us, and an answer that it does not stream brings nothing for a while. `stall_timeout` says how long that may
        last.
        """
        return self.family and self.usage.open > 0

    def memory(self) -> int | None:
        """Bytes that it uses; None if that cannot be known."""
        return memory.used(self.pid, self.told_memory, family=self.family)
