"""How many tokens to draft in the next round: as many as are expected to pay. Pure.

Theory of operation. Drafting is worth what it yields in the time that it takes. A `CostModel` knows the seconds
of each pass on this machine; an `AcceptanceEstimate` knows how often draft tokens were kept lately, by their
position in the round and by the probability that the draft model itself gave them. Let the *rate* be the tokens
per second to beat: those without drafting, or those of the recent rounds if they are more. Then, as in a problem
of optimal stopping,

1. as many tokens are drafted, in one go, as promise the most beyond what the rate would give in the time that they
   cost;
2. then their probabilities may be looked at: perhaps some more tokens are drafted, and of all of them as many are
   verified as promise the most in the same sense. A look has a cost of its own, since the target model's pass is
   put together only afterwards instead of while the draft is computed. So where none is taken, the probabilities
   of some rounds are read afterwards: what looks would have gained there tells whether to take one in the next
   round;
3. where no draft beats the rate without drafting, the target model goes on alone for a while, in the loop without
   drafting, which is faster than drafting nothing. Afterwards the draft model reads what came, and from how much of
   it would have been kept follows whether to draft again.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import mul
from typing import Literal, Protocol

from draftd.engine.generation.estimates import AcceptanceEstimate, CostModel, DecayingMean, Overhead

ROUNDS_DECAY = 0.97  # weight of what was known against one new round
MIN_ROUNDS = 8.0  # the weight of rounds from which on their rate is believed
FIRST_UNDRAFTED, MAX_UNDRAFTED = (
    16,
    256,
)  # tokens that the target model generates alone before drafting is judged anew
MARGIN = 1.02  # drafting must promise so much more than no drafting to be taken up again
MIN_GAIN = 0.1  # tokens per round that looks must gain
LOOK_AFTER_EVERY = 4  # of so many rounds without a look, the confidences of one are read afterwards

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
        """When to read the next round's confidences: before its verification, which then has to wait for them, or
        after it, or never.
        """

    def tokens_to_draft(self, confidences: Sequence[float]) -> int:
        """How many tokens to draft after the ones with these confidences; asked again after each look."""

    def tokens_to_verify(self, confidences: Sequence[float]) -> int:
        """How many of the drafted tokens to verify, after the last look."""

    def observe_round(self, confidences: Sequence[float], verified: int, kept: int) -> None:
        """So many of the drafted tokens were verified, and so many of these kept.

        Without a look before verification all were verified, and there may be no confidences.
        """

    def observe_undrafted(self, chances: Sequence[float]) -> None:
        """So likely would each of the latest tokens have been kept that were generated without drafting."""

    def observe_time(self, tokens: int, seconds: float) -> None:
        """A round, or going on without drafting, gave so many tokens, and took so long until the next could
        begin.
        """


class FixedLength:
    """Always the same draft length."""

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

    def observe_undrafted(self, chances: Sequence[float]) -> None:
        pass

    def observe_time(self, tokens: int, seconds: float) -> None:
        pass


class AdaptiveLength:
    """The draft length that is expected to pay, see the module. One for all requests that sample alike."""

    def __init__(self, cost_model: CostModel) -> None:
        self.cost_model = cost_model
        self._acceptance_estimate = AcceptanceEstimate(cost_model.max_length)
        self._stretch = FIRST_UNDRAFTED
        self._overhead = Overhead()
        self._gain_of_looks = DecayingMean(0.0)  # in tokens per round
        self._looked = False
        self._since_look = 0  # rounds since the last one whose confidences were read
        self._burst = 1  # tokens drafted before the first look
        self._round: float | None = None  # the cost of the present round; None without drafting
        self._forget_rounds()

    def _forget_rounds(self) -> None:
        self._rounds = self._tokens = self._seconds = 0.0

    def _undrafted_rate(self) -> float:
        """Tokens per second without drafting."""
        return 1 / (self.cost_model.single + self._overhead.undrafted)

    def _drafted_rate(self) -> float:
        """Tokens per second of the recent rounds; before there are enough, what a fixed length would give."""
        overhead = self._overhead.drafted
        if self._rounds < MIN_ROUNDS:
            return self.cost_model.best_rate(self._acceptance_estimate.by_position(0), overhead)
        return self._tokens / (self._seconds + self._rounds * overhead)

    def _rate(self) -> float:
        """What a round has to beat, in tokens per second."""
        return max(self._drafted_rate(), self._undrafted_rate())

    def begin_request(self) -> None:
        self._stretch = FIRST_UNDRAFTED
        self._acceptance_estimate.begin_text()
        self._gain_of_looks.begin_text()
        self._forget_rounds()

    def undrafted_tokens(self) -> int:
        """Whenever drafting loses, twice as many as the last time."""
        if 0 < self._rounds < MIN_ROUNDS:  # too early to tell
            return 0
        if self._drafted_rate() >= self._undrafted_rate() * (1 if self._rounds else MARGIN):
            return 0
        stretch, self._stretch = self._stretch, min(2 * self._stretch, MAX_UNDRAFTED)
        self._forget_rounds()
        self._round = None
        return stretch

    def look(self) -> Look:
        """Where no look pays, only now and then: to read how likely tokens were takes time of its own."""
        self._looked = self._gain_of_looks.value > max(MIN_GAIN, self._rate() * self.cost_model.look)
        if self._looked:
            return "before"
        self._since_look = (self._since_look + 1) % LOOK_AFTER_EVERY
        return "never" if self._since_look else "after"

    def tokens_to_draft(self, confidences: Sequence[float]) -> int:
        if confidences:
            return _best(self._worth_of_more(self._chances(confidences)))
        # At least one: whether to draft at all is decided by `undrafted_tokens`.
        self._burst = max(1, _best(self._worth_of_more([])))
        return self._burst

    def tokens_to_verify(self, confidences: Sequence[float]) -> int:
        return _best(self._worth_of_verifying(self._chances(confidences)))

    def _worth_of_more(self, chances: Sequence[float]) -> list[float]:
        """What 0, 1, 2 ... further tokens are worth: what they yield, less what the rate gives in the time."""
        drafted = len(chances)
        so_far = chances[-1] if drafted else 1.0
        ahead = accumulate(self._acceptance_estimate.by_position(drafted), mul, initial=so_far)
        verify = self.cost_model.verify[drafted:]
        return self._worth(ahead, (n * self.cost_model.draft + cost for n, cost in enumerate(verify)))

    def _worth_of_verifying(self, chances: Sequence[float]) -> list[float]:
        """What the first 0, 1, 2 ... of these are worth, once they have been drafted."""
        return self._worth([0.0, *chances], self.cost_model.verify)

    def _worth(self, chances: Iterable[float], costs: Iterable[float]) -> list[float]:
        rate = self._rate()
        return [gain - rate * cost for gain, cost in zip(accumulate(chances), costs, strict=False)]

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
        if self._rounds >= MIN_ROUNDS and self._drafted_rate() > MARGIN * self._undrafted_rate():
            self._stretch = FIRST_UNDRAFTED

    def _gain(self, confidences: Sequence[float]) -> float:
        """How many tokens a look at these is worth, against verifying them all; whether there was a look or not."""
        chances = self._chances(confidences)
        fewer, more = self._worth_of_verifying(chances), self._worth_of_more(chances)
        return max(max(fewer) - fewer[-1], max(more) - more[0])

    def observe_undrafted(self, chances: Sequence[float]) -> None:
        self._acceptance_estimate.observe_undrafted(chances)

    def observe_time(self, tokens: int, seconds: float) -> None:
        if self._round is None:
            self._overhead.add("undrafted", seconds, tokens * self.cost_model.single, passes=tokens)
        else:
            self._overhead.add("drafted", seconds, self._round)

    def _chances(self, confidences: Sequence[float]) -> list[float]:
        """How likely each token is to be kept together with all before it."""
        return list(accumulate(map(self._acceptance_estimate.by_confidence, confidences), mul))


def _best(worth: Sequence[float]) -> int:
    return max(range(len(worth)), key=worth.__getitem__)
