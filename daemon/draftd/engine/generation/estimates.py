"""How often draft tokens were kept lately. Pure."""

from bisect import bisect
from collections.abc import Sequence
from itertools import pairwise

DECAY = 0.97  # weight of what was known against one new draft token
_PRIOR_WEIGHT = 4.0  # draft tokens that a guess is worth
_PRIOR_KEPT = 0.9  # hopeful: what drafting would come to shows after a few rounds of it
_EDGES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995)


class DecayingMean:
    """How often something happened lately, or the mean of something, beginning with a guess."""

    def __init__(self, guess: float) -> None:
        self._hits, self._seen = guess * _PRIOR_WEIGHT, _PRIOR_WEIGHT

    def add(self, hit: float) -> None:
        """Note one more case: 1 if it happened, 0 if not, or how likely it was; or the new value."""
        self._hits = DECAY * self._hits + hit
        self._seen = DECAY * self._seen + 1

    def begin_text(self) -> None:
        """What was seen of other texts counts no more than the guess did."""
        keep = min(1.0, _PRIOR_WEIGHT / self._seen)
        self._hits, self._seen = keep * self._hits, keep * self._seen

    @property
    def value(self) -> float:
        """Between 0 and 1 for what happens or not."""
        return self._hits / self._seen


class AcceptanceEstimate:
    """How often draft tokens were kept lately: by position, and by the draft model's own probability of them."""

    def __init__(self, most: int) -> None:
        self._by_position = [DecayingMean(_PRIOR_KEPT) for _ in range(most)]
        edges = (0.0, *_EDGES, 1.0)
        self._by_confidence = [DecayingMean((low + high) / 2) for low, high in pairwise(edges)]

    def begin_text(self) -> None:
        """What was seen of other texts counts less than what will be seen of this one."""
        for share in self._by_position:
            share.begin_text()

    def by_confidence(self, confidence: float) -> float:
        """How likely a draft token of this probability is to be kept, if the ones before it are."""
        return self._by_confidence[bisect(_EDGES, confidence)].value

    def by_position(self, position: int) -> list[float]:
        """The same for the tokens from `position` (from 0) on, which have not been drafted yet."""
        return [share.value for share in self._by_position[position:]]

    def observe_round(self, confidences: Sequence[float], verified: int, kept: int) -> None:
        """Learn from a round, whose confidences may be unknown; what comes after the first refused token was not
        judged.

        Tokens that were not verified count as what was expected of them: else only good ones would be seen.
        """
        for position in range(min(kept + 1, verified)):
            self._by_position[position].add(position < kept)
        for position, confidence in enumerate(confidences[: min(kept + 1, verified)]):
            self._by_confidence[bisect(_EDGES, confidence)].add(position < kept)
        if kept == verified:
            for position, confidence in enumerate(confidences[verified:], verified):
                self._by_position[position].add(self.by_confidence(confidence))

    def observe_undrafted(self, shares: Sequence[float]) -> None:
        """Learn from tokens that the target model generated alone: how likely each was to be kept."""
        for share in shares:
            for position in self._by_position:
                position.add(share)
