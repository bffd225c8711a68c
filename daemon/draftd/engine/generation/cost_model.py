"""What the passes of both models cost on this machine, as priced beforehand and as seen since. Pure."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul
from statistics import median

WINDOW = {"drafting": 100, "alone": 30}  # cases that are looked back on
FRESH = 60.0  # seconds of work after which a case is forgotten


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds: of a token without drafting, of a draft token, and, `verify[n]`, of the rest of a round of n; and of
    a look at the draft tokens' probabilities before they are verified.
    """

    single: float
    draft: float
    verify: tuple[float, ...]
    look: float = 0.0

    @property
    def max_length(self) -> int:
        """The longest draft whose verification has a price."""
        return len(self.verify) - 1

    def mean_verify(self, proposed_by_position: Sequence[int]) -> float:
        """Seconds of a verification, in the mean of rounds of which so many proposed a token at each position."""
        rounds = [here - more for here, more in pairwise([*proposed_by_position, 0])]
        seconds = sum(count * price for count, price in zip(rounds, self.verify[1:], strict=False))
        return seconds / max(1, sum(rounds))

    def best_rate(self, kept: Sequence[float], extra: float = 0.0) -> float:
        """Tokens per second with the best fixed draft length, if the token at each position is kept so often and a
        round takes `extra` seconds beyond its price.
        """
        kept_with_all_before = accumulate(kept, mul)
        tokens = (1 + gain for gain in accumulate(kept_with_all_before))
        prices = (n * self.draft + self.verify[n] + extra for n in range(1, self.max_length + 1))
        rates: list[float] = [got / price for got, price in zip(tokens, prices, strict=True)]
        return max(rates)


class Overhead:
    """Seconds that a pass of the target model takes beyond its price: for a long context, for whoever takes the
    tokens, on a busy machine.

    Drafting and going on alone are told apart, as they wait for others in different ways. Medians of what was seen
    lately. Of what was not seen lately the best is assumed, so that it is tried again.
    """

    def __init__(self) -> None:
        self._work = 0.0
        self._seen = {kind: deque[tuple[float, float]](maxlen=most) for kind, most in WINDOW.items()}
        self.drafting = self.alone = 0.0  # nothing is known

    def add(self, kind: str, seconds: float, priced: float, passes: int = 1) -> None:
        """Note one case of "drafting" or "alone"."""
        self._work += seconds
        self._seen[kind].append((self._work, (seconds - priced) / passes))
        self.drafting, self.alone = self._usual("drafting"), self._usual("alone")

    def _usual(self, kind: str) -> float:
        """Never negative: if all takes less than priced, the prices are from a busier time, and all of them so."""
        fresh = [extra for when, extra in self._seen[kind] if when > self._work - FRESH]
        return max(0.0, median(fresh)) if fresh else 0.0
