"""What is expected of drafting: how often draft tokens are kept, and what the passes of both models cost. Pure.

A `CostModel` is measured once (see `calibration`); `Overhead` and `AcceptanceEstimate` learn from each round. What
drafting is worth follows from these, see Leviathan et al., arXiv 2211.17192, section 3.3.
"""

from bisect import bisect
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul
from statistics import median

from draftd.engine.generation.acceptance import AcceptanceCount
from draftd.protocol import Costs

DECAY = 0.97  # weight of what was known against one new draft token
_PRIOR_WEIGHT = 4.0  # draft tokens that a guess is worth
_PRIOR_KEPT = 0.9  # hopeful: what drafting really comes to shows after a few rounds of it
_EDGES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995)
WINDOW = {"drafted": 100, "undrafted": 30}  # how many cases of each kind are looked back on
MAX_AGE = 60.0  # seconds of work after which a case is forgotten


class DecayingMean:
    """The mean of the latest values, which begins with a guess; of ones and zeros, how often something happened."""

    def __init__(self, guess: float) -> None:
        self._sum, self._weight = guess * _PRIOR_WEIGHT, _PRIOR_WEIGHT

    def add(self, value: float) -> None:
        """Note one more value."""
        self._sum = DECAY * self._sum + value
        self._weight = DECAY * self._weight + 1

    def begin_text(self) -> None:
        """From now on, what was seen of other texts counts no more than the guess did."""
        keep = min(1.0, _PRIOR_WEIGHT / self._weight)
        self._sum, self._weight = keep * self._sum, keep * self._weight

    @property
    def value(self) -> float:
        """The mean."""
        return self._sum / self._weight


class AcceptanceEstimate:
    """How likely draft tokens are to be kept: by their position, and by the draft model's own probability of them,
    the confidence.
    """

    def __init__(self, max_length: int) -> None:
        self._by_position = [DecayingMean(_PRIOR_KEPT) for _ in range(max_length)]
        edges = (0.0, *_EDGES, 1.0)
        self._by_confidence = [DecayingMean((low + high) / 2) for low, high in pairwise(edges)]

    def begin_text(self) -> None:
        """From now on, what was seen of other texts counts less than what is seen of this one."""
        for mean in self._by_position:
            mean.begin_text()

    def by_confidence(self, confidence: float) -> float:
        """How likely a token of this confidence is to be kept, if all before it are."""
        return self._by_confidence[bisect(_EDGES, confidence)].value

    def by_position(self, first: int) -> list[float]:
        """The same for each position from `first` (counted from 0) on, where nothing has been drafted yet."""
        return [mean.value for mean in self._by_position[first:]]

    def observe_round(self, confidences: Sequence[float], verified: int, kept: int) -> None:
        """Learn from a round; there may be no confidences. Nothing is learnt about what follows the first refused
        token.

        Tokens that were not verified count as what was expected of them: otherwise only good ones would be seen.
        """
        for position in range(min(kept + 1, verified)):
            self._by_position[position].add(position < kept)
        for position, confidence in enumerate(confidences[: min(kept + 1, verified)]):
            self._by_confidence[bisect(_EDGES, confidence)].add(position < kept)
        if kept == verified:
            for position, confidence in enumerate(confidences[verified:], verified):
                self._by_position[position].add(self.by_confidence(confidence))

    def observe_undrafted(self, chances: Sequence[float]) -> None:
        """Learn from tokens that came without drafting: how likely a draft of each would have been kept."""
        for chance in chances:
            for mean in self._by_position:
                mean.add(chance)


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds on this machine: of a token without drafting (`single`), of a draft token (`draft`), of all else in a
    round that proposes n tokens (`verify[n]`), and of a look at the draft tokens' probabilities before they are
    verified (`look`).
    """

    single: float
    draft: float
    verify: tuple[float, ...]
    look: float = 0.0

    @property
    def max_length(self) -> int:
        """The longest draft whose cost is known."""
        return len(self.verify) - 1

    def mean_verify(self, proposed_by_position: Sequence[int]) -> float:
        """The mean of `verify` over rounds of which so many proposed a token at each position; 0 for no round."""
        rounds = [here - more for here, more in pairwise([*proposed_by_position, 0])]
        seconds = sum(count * cost for count, cost in zip(rounds, self.verify[1:], strict=False))
        return seconds / max(1, sum(rounds))

    def best_rate(self, chances: Sequence[float], overhead: float = 0.0) -> float:
        """Tokens per second with the best fixed draft length, if a token at each position is kept with such a
        chance and each round takes `overhead` seconds more than its cost.
        """
        kept_with_all_before = accumulate(chances, mul)
        tokens = (1 + gain for gain in accumulate(kept_with_all_before))
        seconds = (n * self.draft + self.verify[n] + overhead for n in range(1, self.max_length + 1))
        rates: list[float] = [got / took for got, took in zip(tokens, seconds, strict=True)]
        return max(rates)

    def costs_of(self, count: AcceptanceCount) -> Costs:
        """The costs for the record of a generation: of the draft length, or of the mean round where it changed."""
        if count.draft_length is None:
            return Costs(self.single, self.draft, self.mean_verify(count.proposed_by_position))
        return Costs(self.single, self.draft, self.verify[count.draft_length])


class Overhead:
    """The seconds that a pass of the target model takes beyond its cost: for a long context, for whoever takes the
    tokens, on a busy machine.

    Passes with and without a draft are told apart, as they wait for others in different ways. Each figure is the
    median of what was seen lately; where nothing was, it is 0, the best there can be, so that it is tried again.
    """

    def __init__(self) -> None:
        self._work = 0.0
        self._seen = {kind: deque[tuple[float, float]](maxlen=length) for kind, length in WINDOW.items()}
        self.drafted = self.undrafted = 0.0

    def add(self, kind: str, seconds: float, cost: float, passes: int = 1) -> None:
        """Note the time and the cost of some passes; `kind` is "drafted" or "undrafted"."""
        self._work += seconds
        self._seen[kind].append((self._work, (seconds - cost) / passes))
        self.drafted, self.undrafted = self._usual("drafted"), self._usual("undrafted")

    def _usual(self, kind: str) -> float:
        """Never negative: where all takes less than its cost, the costs are from a busier time, and all of them
        are.
        """
        recent = [overhead for when, overhead in self._seen[kind] if when > self._work - MAX_AGE]
        return max(0.0, median(recent)) if recent else 0.0


def interpolated(values: Mapping[int, float]) -> list[float]:
    """Return a value for each whole number from the lowest key to the highest, on straight lines between them."""
    found = []
    for (here, low), (there, high) in pairwise(sorted(values.items())):
        found += [low + (high - low) * (place - here) / (there - here) for place in range(here, there)]
    return [*found, values[max(values)]]


def speedup(costs: Costs, count: AcceptanceCount) -> float | None:
    """Return how many times as fast as without drafting the counted tokens came; None if nothing was drafted."""
    seconds = count.proposed * costs.draft + count.rounds * costs.verify + count.undrafted * costs.single
    return count.tokens * costs.single / seconds if count.rounds else None
