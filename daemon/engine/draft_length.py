"""How many tokens to draft in the next round: as many as are expected to pay. Pure.

Theory of operation. Drafting is worth what it yields in the time that it takes. `Prices` knows the seconds of each
pass on this machine; `Habits` knows how often draft tokens were kept lately, by their position in the round and
by the probability that the draft model itself gave them. Let the *rate* be the tokens per second to beat: those
without drafting, or those of the recent rounds if they are more. Then, as in a problem of optimal stopping,

1. as many tokens are drafted, at one go, as promise the most beyond what the rate would give in the time that
   they cost; then their probabilities are looked at, and perhaps some more are drafted;
2. of the drafted tokens as many are verified as promise the most in the same sense;
3. where no draft beats the rate without drafting, the target model goes on alone for a while, in the loop
   without drafting, which is faster than drafting nothing. Afterwards the draft model reads what came, which
   tells at once how much of it would have been kept: from that follows whether to draft again.
"""

from bisect import bisect
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul
from statistics import median
from typing import Protocol

DECAY = 0.97  # weight of what was known against one new draft token
ROUNDS_DECAY = 0.97  # the same for one new round
FEW_ROUNDS = 4.0  # as much weight as rounds must have before their rate is believed
FIRST_ALONE, MOST_ALONE = 16, 256  # tokens that the target model generates alone before the next look
PACE_WINDOW = {"drafting": 15, "alone": 5}  # cases that are looked back on
PACE_FRESH = 15.0  # seconds of work after which a case is forgotten
MARGIN = 1.02  # drafting must promise so much more than no drafting to be taken up again
_PRIOR_WEIGHT = 4.0  # draft tokens that a guess is worth
_PRIOR_KEPT = 0.9  # hopeful: what drafting would come to shows after a few rounds of it
_EDGES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995)


@dataclass(frozen=True, slots=True)
class Prices:
    """Seconds: of a token without drafting, of a draft token, and, `verify[n]`, of the rest of a round of n."""

    single: float
    draft: float
    verify: tuple[float, ...]

    @property
    def most(self) -> int:
        """The longest draft whose verification has a price."""
        return len(self.verify) - 1

    def mean_verify(self, proposed_by_position: Sequence[int]) -> float:
        """Seconds of a verification, in the mean of rounds of which so many proposed a token at each position."""
        rounds = [here - more for here, more in pairwise([*proposed_by_position, 0])]
        seconds = sum(count * price for count, price in zip(rounds, self.verify[1:], strict=False))
        return seconds / max(1, sum(rounds))

    def best_rate(self, kept: Sequence[float]) -> float:
        """Tokens per second with the best fixed draft length, if the token at each position is kept so often."""
        kept_with_all_before = accumulate(kept, mul)
        tokens = (1 + gain for gain in accumulate(kept_with_all_before))
        prices = (n * self.draft + self.verify[n] for n in range(1, self.most + 1))
        rates: list[float] = [got / price for got, price in zip(tokens, prices, strict=True)]
        return max(rates)


class Share:
    """How often something happened lately, beginning with a guess."""

    def __init__(self, guess: float) -> None:
        self._hits, self._seen = guess * _PRIOR_WEIGHT, _PRIOR_WEIGHT

    def add(self, hit: float) -> None:
        """Note one more case: 1 if it happened, 0 if not, or how likely it was."""
        self._hits = DECAY * self._hits + hit
        self._seen = DECAY * self._seen + 1

    def fade(self, weight: float) -> None:
        """Let what is known count as no more than so many cases."""
        keep = min(1.0, weight / self._seen)
        self._hits, self._seen = keep * self._hits, keep * self._seen

    @property
    def value(self) -> float:
        """Between 0 and 1."""
        return self._hits / self._seen


class Habits:
    """How often draft tokens were kept lately: by position, and by the draft model's own probability of them."""

    def __init__(self, most: int) -> None:
        self._by_position = [Share(_PRIOR_KEPT) for _ in range(most)]
        edges = (0.0, *_EDGES, 1.0)
        self._by_confidence = [Share((low + high) / 2) for low, high in pairwise(edges)]

    def another_text(self) -> None:
        """What was seen of other texts counts less than what will be seen of this one."""
        for share in self._by_position:
            share.fade(_PRIOR_WEIGHT)

    def chance(self, confidence: float) -> float:
        """How likely a draft token of this probability is to be kept, if the ones before it are."""
        return self._by_confidence[bisect(_EDGES, confidence)].value

    def ahead(self, position: int) -> list[float]:
        """The same for the tokens from `position` (from 0) on, which have not been drafted yet."""
        return [share.value for share in self._by_position[position:]]

    def judged(self, confidences: Sequence[float], verified: int, kept: int) -> None:
        """Learn from a round; what comes after the first refused token was not judged.

        Tokens that were not verified count as what was expected of them: else only good ones would be seen.
        """
        judged = confidences[: min(kept + 1, verified)]
        for position, confidence in enumerate(judged):
            self._by_confidence[bisect(_EDGES, confidence)].add(position < kept)
            self._by_position[position].add(position < kept)
        if kept == verified:
            for position, confidence in enumerate(confidences[verified:], verified):
                self._by_position[position].add(self.chance(confidence))

    def would_have_kept(self, shares: Sequence[float]) -> None:
        """Learn from tokens that the target model generated alone: how likely each was to be kept."""
        for share in shares:
            for position in self._by_position:
                position.add(share)


class Plan(Protocol):
    """What decides about the length of each draft.

    Confidences are the draft model's own probabilities of the tokens that it proposed.
    """

    watches: bool
    """Whether it wants to know the confidences, which have to be waited for."""

    def begin(self) -> None:
        """Another request begins."""

    def alone(self) -> int:
        """How many tokens to generate without drafting before the next round; 0 for none."""

    def more(self, confidences: Sequence[float]) -> int:
        """How many tokens to draft after these before the next look."""

    def verified(self, confidences: Sequence[float]) -> int:
        """How many of the drafted tokens to verify."""

    def judged(self, confidences: Sequence[float], verified: int, kept: int) -> None:
        """Of the drafted tokens so many were verified, and of these so many kept."""

    def would_have_kept(self, shares: Sequence[float]) -> None:
        """How likely each of the last tokens generated alone was to be kept, had it been drafted."""

    def took(self, tokens: int, seconds: float) -> None:
        """So many tokens came of the round, or alone, and so long it took until the next one could begin."""


class Fixed:
    """Always the same length."""

    watches = False

    def __init__(self, length: int) -> None:
        self._length = length

    def begin(self) -> None:
        pass

    def alone(self) -> int:
        return 0

    def more(self, confidences: Sequence[float]) -> int:
        return self._length - len(confidences)

    def verified(self, confidences: Sequence[float]) -> int:
        return len(confidences)

    def judged(self, confidences: Sequence[float], verified: int, kept: int) -> None:
        pass

    def would_have_kept(self, shares: Sequence[float]) -> None:
        pass

    def took(self, tokens: int, seconds: float) -> None:
        pass


class Pace:
    """By what factor things take longer than priced: long contexts, whoever takes the tokens, a busy machine.

    Drafting and going on alone are told apart, as they wait for others in different ways. Medians of what was seen
    lately. Of drafting that was not seen lately the best is assumed, so that it is tried again; of going on alone,
    the same as of drafting.
    """

    def __init__(self) -> None:
        self._work = 0.0
        self._seen = {kind: deque[tuple[float, float]](maxlen=most) for kind, most in PACE_WINDOW.items()}

    def add(self, kind: str, seconds: float, priced: float) -> None:
        """Note one case of "drafting" or "alone"."""
        self._work += seconds
        self._seen[kind].append((self._work, seconds / priced))

    def factor(self, kind: str) -> float:
        """1 if nothing is known."""
        for known in (kind, "drafting"):
            if fresh := [factor for when, factor in self._seen[known] if when > self._work - PACE_FRESH]:
                return median(fresh)
        return 1.0


class Tuned:
    """The length that is expected to pay, see the module. One for all requests that sample in the same way."""

    watches = True

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self._habits = Habits(prices.most)
        self._stretch = FIRST_ALONE
        self._pace = Pace()
        self._round: float | None = None  # the price of the round that goes on; None when alone
        self._forget_rounds()

    def _forget_rounds(self) -> None:
        self._rounds = self._tokens = self._seconds = 0.0

    def _plain(self) -> float:
        """Tokens per second without drafting."""
        return 1 / (self.prices.single * self._pace.factor("alone"))

    def _drafting(self) -> float:
        """Tokens per second of the recent rounds; before there are enough, what a fixed length would give."""
        known = self._rounds >= FEW_ROUNDS
        rate = self._tokens / self._seconds if known else self.prices.best_rate(self._habits.ahead(0))
        return rate / self._pace.factor("drafting")

    def begin(self) -> None:
        self._stretch = FIRST_ALONE
        self._habits.another_text()
        self._forget_rounds()

    def alone(self) -> int:
        """Whenever drafting loses, twice as long as the last time."""
        if 0 < self._rounds < FEW_ROUNDS:  # too early to tell
            return 0
        if self._drafting() >= self._plain() * (1 if self._rounds else MARGIN):
            return 0
        stretch, self._stretch = self._stretch, min(2 * self._stretch, MOST_ALONE)
        self._forget_rounds()
        self._round = None
        return stretch

    def more(self, confidences: Sequence[float]) -> int:
        drafted = len(confidences)
        so_far = self._chances(confidences)[-1] if drafted else 1.0
        chances = accumulate(self._habits.ahead(drafted), mul, initial=so_far)
        prices = (n * self.prices.draft + price for n, price in enumerate(self.prices.verify[drafted:]))
        best = self._best(chances, prices)
        return best if drafted else max(1, best)  # whether to draft at all is the question of `alone`

    def verified(self, confidences: Sequence[float]) -> int:
        return self._best([0.0, *self._chances(confidences)], self.prices.verify)

    def _best(self, chances: Iterable[float], prices: Iterable[float]) -> int:
        """How many tokens are worth most, beyond what the rate gives in the time; the first of both is for none."""
        rate = max(self._drafting(), self._plain()) * self._pace.factor("drafting")
        worth = [gain - rate * price for gain, price in zip(accumulate(chances), prices, strict=False)]
        return max(range(len(worth)), key=worth.__getitem__)

    def judged(self, confidences: Sequence[float], verified: int, kept: int) -> None:
        self._habits.judged(confidences, verified, kept)
        seconds = len(confidences) * self.prices.draft + self.prices.verify[verified]
        self._round = seconds
        self._rounds = ROUNDS_DECAY * self._rounds + 1
        self._tokens = ROUNDS_DECAY * self._tokens + kept + 1
        self._seconds = ROUNDS_DECAY * self._seconds + seconds
        if self._rounds >= FEW_ROUNDS and self._drafting() > MARGIN * self._plain():
            self._stretch = FIRST_ALONE

    def would_have_kept(self, shares: Sequence[float]) -> None:
        self._habits.would_have_kept(shares)

    def took(self, tokens: int, seconds: float) -> None:
        if self._round is None:
            self._pace.add("alone", seconds, tokens * self.prices.single)
        else:
            self._pace.add("drafting", seconds, self._round)

    def _chances(self, confidences: Sequence[float]) -> list[float]:
        """How likely each token is to be kept, together with all before it."""
        return list(accumulate(map(self._habits.chance, confidences), mul))
