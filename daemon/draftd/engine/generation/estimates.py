"""How often draft tokens are kept, learnt from the rounds as they come. Pure.

A *source* of drafts is a name: a draft model, or lookups with matches of one class. Lengths are in draft tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

DECAY = 0.98  # weight of what was known of a source against one more draft from it
PRIOR_WEIGHT = 8.0  # draft tokens that a guess is worth, and so is what was seen of other texts
NEIGHBOUR_WEIGHT = 1.0  # draft tokens that what is known of the position before is worth
MAX_POSITIONS = 8  # that are told apart


@dataclass(slots=True)
class Share:
    """How many tokens were seen lately, and how many of them were kept. Both fade."""

    kept: float = 0.0
    seen: float = 0.0

    def fade(self, rest: float) -> None:
        """Let what was seen count that much of what it did."""
        self.kept, self.seen = rest * self.kept, rest * self.seen


class AcceptanceEstimate:
    """How likely a draft token is to be kept if all before it in its draft are, by source and position.

    Of a position that was not tried for long, what is known of the one before it is believed in the end.
    """

    def __init__(self, guess: Callable[[str], float]) -> None:
        self._guess = guess
        self._shares: dict[str, list[Share]] = {}

    def _of(self, source: str) -> list[Share]:
        if source not in self._shares:
            first = Share(self._guess(source) * PRIOR_WEIGHT, PRIOR_WEIGHT)
            self._shares[source] = [first, *(Share() for _ in range(MAX_POSITIONS - 1))]
        return self._shares[source]

    def chances(self, source: str, length: int) -> Iterator[float]:
        """Yield for each position how likely its token is to be kept, together with all before it."""
        chance, value = 1.0, self._guess(source)
        weight = 0.0  # nothing comes before the first
        shares = self._of(source)
        for position in range(length):
            if position < MAX_POSITIONS:
                share = shares[position]
                value = (share.kept + weight * value) / (share.seen + weight)
                weight = NEIGHBOUR_WEIGHT
            chance *= value
            yield chance

    def judged(self, source: str, length: int, kept: float) -> None:
        """Learn how many tokens of a draft were kept; what comes after the first refused one was not judged.

        Of a draft of one token, `kept` may be how likely it was to be kept.
        """
        shares = self._of(source)
        for share in shares:
            share.fade(DECAY)
        for position in range(min(int(kept) + 1, length)):
            share = shares[min(position, MAX_POSITIONS - 1)]
            share.kept += min(1.0, kept - position)
            share.seen += 1

    def another_text(self) -> None:
        """What was seen of other texts counts less than what will be seen of this one."""
        for shares in self._shares.values():
            for share in shares:
                share.fade(PRIOR_WEIGHT / max(share.seen, PRIOR_WEIGHT))
