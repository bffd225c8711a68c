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
    headers: Mapping[str, str] = field(default_factory=dict)  # that its engine wants to see with each request
    output: int = 0  # bytes
    said: bytes = b""  # the last of them
    told_memory: int = 0  # bytes, by the word of the engine; 0 if it has not said
    accounting: bool = False  # whether the engine counts draft tokens
    draft_refusal: str | None = None  # why nothing may be drafted with its models, if so
    batch_refusal: str | None = None  # why requests that are drafted do not share passes, if so
    prompt_cache: CacheSize | None = None  # of its engine, by its word
    status: int | None = None  # of its latest answer to the readiness check
    answer: str = "nothing listens on its port"  # the same, for people

    @property
    def family(self) -> bool:
        """Whether it may have descendants that matter."""
        return bool(self.profile().command)

    @property
    def may_be_mute(self) -> bool:
        """Whether it may well be silent: another server that works on a request may have no thread left for us, and
        nothing comes of an answer that it does not stream. How long that may go on, `stall_timeout` says.
        """
        return self.family and self.usage.open > 0

    def memory(self) -> int | None:
        """Bytes that it uses; None if that cannot be known."""
        return memory.used(self.pid, self.told_memory, family=self.family)
