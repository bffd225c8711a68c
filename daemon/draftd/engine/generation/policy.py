"""How many tokens to draft in the next round: as many as are expected to pay. Pure.

Theory of operation. Drafting is worth what it yields in the time that it takes. `CostModel` knows the seconds of
each pass on this machine; `AcceptanceEstimate` knows how often draft tokens were kept lately, by their position in
the round and by the probability that the draft model itself gave them. Let the *rate* be the tokens per second to
beat: those without drafting, or those of the recent rounds if they are more. Then, as in a problem of optimal
stopping,

1. as many tokens are drafted, at one go, as promise the most beyond what the rate would give in the time that
   they cost;
2. then their probabilities may be looked at: perhaps some more are drafted, and of all as many are verified as
   promise the most in the same sense. A look has a price as well, since the target model's pass is put together
   only afterwards instead of while the draft is computed. So where there is none, the probabilities of some
   rounds are learnt afterwards: what looks would have gained there tells whether to look in the next round;
3. where no draft beats the rate without drafting, the target model goes on alone for a while, in the loop
   without drafting, which is faster than drafting nothing. Afterwards the draft model reads what came, which
   tells at once how much of it would have been kept: from that follows whether to draft again.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import mul
from typing import Literal, Protocol

from draftd.engine.generation.cost_model import CostModel, Overhead
from draftd.engine.generation.estimates import AcceptanceEstimate, DecayingMean

ROUNDS_DECAY = 0.97  # weight of what was known against one new round
MIN_ROUNDS = 8.0  # as much weight as rounds must have before their rate is believed
FIRST_ALONE, MAX_ALONE = 16, 256  # tokens that the target model generates alone before the next look
MARGIN = 1.02  # drafting must promise so much more than no drafting to be taken up again
MIN_GAIN = 0.1  # tokens per round that looks must gain
UNSEEN = 4  # of so many rounds without a look the confidences of one become known

Look = Literal["before", "after", "never"]


class DraftPolicy(Protocol):
    """What decides about the length of each draft.

    Confidences are the draft model's own probabilities of the tokens that it proposed.
    """

    def begin_request(self) -> None:
        """Another request begins."""

    def undrafted_tokens(self) -> int:
        """How many tokens to generate without drafting before the next round; 0 for none."""

    def look(self) -> Look:
        """Whether it wants to know the next round's confidences before its verification, which has to wait for
        them then, or after it, or not at all.
        """

    def tokens_to_draft(self, confidences: Sequence[float]) -> int:
        """How many tokens to draft after these, before the next look if there is one."""

    def tokens_to_verify(self, confidences: Sequence[float]) -> int:
        """How many of the drafted tokens to verify."""

    def observe_round(self, confidences: Sequence[float], verified: int, kept: int) -> None:
        """Of the drafted tokens so many were verified, and of these so many kept.

        Without a look all were verified, and there may be no confidences.
        """

    def observe_undrafted(self, shares: Sequence[float]) -> None:
        """How likely each of the last tokens generated alone was to be kept, had it been drafted."""

    def observe_time(self, tokens: int, seconds: float) -> None:
        """So many tokens came of the round, or alone, and so long it took until the next one could begin."""


class FixedLength:
    """Always the same length."""

    def __init__(self, length: int, look: Look = "never") -> None:
        self._length = length
        self._look: Look = look

    def begin_request(self) -> None:
        pass

    def undrafted_tokens(self) -> int:
        return 0

    def look(self) -> Look:
        return self._look

    def tokens_to_draft(self, confidences: Sequence[float]) -> int:
        return self._length - len(confidences)

    def tokens_to_verify(self, confidences: Sequence[float]) -> int:
        return len(confidences)

    def observe_round(self, confidences: Sequence[float], verified: int, kept: int) -> None:
        pass

    def observe_undrafted(self, shares: Sequence[float]) -> None:
        pass

    def observe_time(self, tokens: int, seconds: float) -> None:
        pass


class AdaptiveLength:
    """The length that is expected to pay, see the module. One for all requests that sample in the same way."""

    def __init__(self, prices: CostModel) -> None:
        self.cost_model = prices
        self._acceptance_estimate = AcceptanceEstimate(prices.max_length)
        self._stretch = FIRST_ALONE
        self._extra = Overhead()
        self._gain_of_looks = DecayingMean(0.0)  # in tokens per round
        self._looked = False
        self._unseen = 0  # rounds since one whose confidences became known
        self._burst = 1  # what was drafted before the first look
        self._round: float | None = None  # the price of the round that goes on; None when alone
        self._forget_rounds()

    def _forget_rounds(self) -> None:
        self._rounds = self._tokens = self._seconds = 0.0

    def _plain(self) -> float:
        """Tokens per second without drafting."""
        return 1 / (self.cost_model.single + self._extra.alone)

    def _drafting(self) -> float:
        """Tokens per second of the recent rounds; before there are enough, what a fixed length would give."""
        extra = self._extra.drafting
        if self._rounds < MIN_ROUNDS:
            return self.cost_model.best_rate(self._acceptance_estimate.by_position(0), extra)
        return self._tokens / (self._seconds + self._rounds * extra)

    def _rate(self) -> float:
        """What a round has to beat, in tokens per second."""
        return max(self._drafting(), self._plain())

    def begin_request(self) -> None:
        self._stretch = FIRST_ALONE
        self._acceptance_estimate.begin_text()
        self._gain_of_looks.begin_text()
        self._forget_rounds()

    def undrafted_tokens(self) -> int:
        """Whenever drafting loses, twice as long as the last time."""
        if 0 < self._rounds < MIN_ROUNDS:  # too early to tell
            return 0
        if self._drafting() >= self._plain() * (1 if self._rounds else MARGIN):
            return 0
        stretch, self._stretch = self._stretch, min(2 * self._stretch, MAX_ALONE)
        self._forget_rounds()
        self._round = None
        return stretch

    def look(self) -> Look:
        """Now and then only, where no look pays: to know how likely tokens were takes time of its own."""
        self._looked = self._gain_of_looks.value > max(MIN_GAIN, self._rate() * self.cost_model.look)
        if self._looked:
            return "before"
        self._unseen = (self._unseen + 1) % UNSEEN
        return "never" if self._unseen else "after"

    def tokens_to_draft(self, confidences: Sequence[float]) -> int:
        if confidences:
            return _best(self._worth_of_more(self._chances(confidences)))
        # At least one: whether to draft at all is the question of `alone`.
        self._burst = max(1, _best(self._worth_of_more([])))
        return self._burst

    def tokens_to_verify(self, confidences: Sequence[float]) -> int:
        return _best(self._worth_of_verifying(self._chances(confidences)))

    def _worth_of_more(self, chances: Sequence[float]) -> list[float]:
        """What 0, 1, 2 ... tokens after these are worth, beyond what the rate gives in the time."""
        drafted = len(chances)
        so_far = chances[-1] if drafted else 1.0
        prices = (
            n * self.cost_model.draft + price for n, price in enumerate(self.cost_model.verify[drafted:])
        )
        return self._worth(
            accumulate(self._acceptance_estimate.by_position(drafted), mul, initial=so_far), prices
        )

    def _worth_of_verifying(self, chances: Sequence[float]) -> list[float]:
        """What the first 0, 1, 2 ... of these are worth, once they have been drafted."""
        return self._worth([0.0, *chances], self.cost_model.verify)

    def _worth(self, chances: Iterable[float], prices: Iterable[float]) -> list[float]:
        rate = self._rate()
        return [gain - rate * price for gain, price in zip(accumulate(chances), prices, strict=False)]

    def observe_round(self, confidences: Sequence[float], verified: int, kept: int) -> None:
        if confidences:
            self._gain_of_looks.add(self._gain(confidences[: self._burst]))
        self._acceptance_estimate.observe_round(confidences, verified, kept)
        seconds = max(verified, len(confidences)) * self.cost_model.draft + self.cost_model.verify[verified]
        seconds += self.cost_model.look * self._looked
        self._round = seconds
        self._rounds = ROUNDS_DECAY * self._rounds + 1
        self._tokens = ROUNDS_DECAY * self._tokens + kept + 1
        self._seconds = ROUNDS_DECAY * self._seconds + seconds
        if self._rounds >= MIN_ROUNDS and self._drafting() > MARGIN * self._plain():
            self._stretch = FIRST_ALONE

    def _gain(self, confidences: Sequence[float]) -> float:
        """Tokens that a look at these is worth, against verifying them all, whether there was one or not."""
        chances = self._chances(confidences)
        fewer, more = self._worth_of_verifying(chances), self._worth_of_more(chances)
        return max(max(fewer) - fewer[-1], max(more) - more[0])

    def observe_undrafted(self, shares: Sequence[float]) -> None:
        self._acceptance_estimate.observe_undrafted(shares)

    def observe_time(self, tokens: int, seconds: float) -> None:
        if self._round is None:
            self._extra.add("alone", seconds, tokens * self.cost_model.single, passes=tokens)
        else:
            self._extra.add("drafting", seconds, self._round)

    def _chances(self, confidences: Sequence[float]) -> list[float]:
        """How likely each token is to be kept, together with all before it."""
        return list(accumulate(map(self._acceptance_estimate.by_confidence, confidences), mul))


def _best(worth: Sequence[float]) -> int:
    return max(range(len(worth)), key=worth.__getitem__)
