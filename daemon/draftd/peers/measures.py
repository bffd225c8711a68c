"""What is known of how a machine serves one model, from the answers that came from there. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from draftd.peers.routing import crowding

NEWEST_WEIGHT = 0.2  # of the newest answer in each mean
MIN_READ = 64  # tokens of a prompt; with fewer, everything else takes most of the time
BYTES_PER_TOKEN = 4.0  # of a prompt, where nothing is known
ANSWER_TOKENS = 200.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One answer. `before` are the requests that were open there when it was asked for; seconds count from then."""

    prompt_tokens: int
    cached_tokens: int
    tokens: int
    tokens_per_second: float | None
    first_token: float | None
    seconds: float
    before: int
    slots: int


@dataclass(slots=True)
class Measures:
    """Means in which the newest answers count most; None as long as nothing is known. See `routing.Place`."""

    reads: float | None = None
    writes: float | None = None
    takes: float | None = None
    answer: float | None = None

    def add(self, one: Figures) -> None:
        """Learn from an answer."""
        crowd = crowding(one.before, one.slots)
        waited = one.before >= one.slots
        if one.tokens_per_second:
            self.writes = mean(self.writes, one.tokens_per_second * crowd)
        new = one.prompt_tokens - one.cached_tokens
        if not waited and new >= MIN_READ and one.first_token:
            self.reads = mean(self.reads, new / one.first_token * crowd)
        if not waited:
            self.takes = mean(self.takes, one.seconds)
        if one.tokens:
            self.answer = mean(self.answer, one.tokens)


def mean(old: float | None, new: float) -> float:
    """The mean of what was and what is newest."""
    return new if old is None else old + NEWEST_WEIGHT * (new - old)
