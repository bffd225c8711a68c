"""How to go on: which source drafts, and how many tokens. Pure.

Theory of operation. A round is worth the tokens that it is expected to yield in the time that it takes. Of all
sources and lengths the one with the best rate is chosen; going on without a draft is one of them. Chances and times
are learnt from the rounds (`estimates`). What is uncertain is tried by three rules:

1. A length that was timed less than twice is hoped to take no longer than the next shorter one: it is tried if that
   would make it the best.
2. Every PROBE rounds the neighbour of the chosen length is taken, once the shorter and once the longer one.
3. Where no draft pays, the target model goes on alone, for twice as many tokens each time. Then the draft model
   reads them, which tells what it would have proposed in the place of the last of them: that is the review.

Lookups cost nothing to find, so they are judged in every round, whether they were verified or not.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from draftd.engine.generation.estimates import ALONE, MIN_TIMES, AcceptanceEstimate, CostModel, RoundTimes

MODEL, LOOKUP, REVIEW = "model", "lookup", "review"
MATCH_CLASSES = (3, 5, 9, 17)  # tokens of the shortest match of each class
GUESSES = {MODEL: 0.85, "lookup3": 0.5, "lookup5": 0.65, "lookup9": 0.8, "lookup17": 0.9}
LENGTHS = (*range(1, 9), 10, 12, 16, 24, 32, 48, 64)  # in draft tokens; no others are weighed
PROBE = 32  # rounds
FIRST_TIMES = 4  # tokens of the very first request that go alone
FIRST_ALONE, MAX_ALONE = 16, 256  # tokens
MIN_CHANCE = 0.02  # of being kept that a token must have to be weighed
MARGIN = 1.02  # a draft must promise so much more than going on alone to be taken up again
MIN_LOOKUP = 5  # tokens of a match that a policy of a fixed length takes
MAX_FIXED_LOOKUP = 16  # tokens that it then proposes


@dataclass(frozen=True, slots=True)
class Choice:
    """A source of drafts and a length. ALONE is one token without a draft; REVIEW has the draft model read what it has
    not read, so that the next choice can be made.
    """

    source: str
    length: int = 0


@dataclass(frozen=True, slots=True)
class Situation:
    """What a choice is made for: the depth of the context and the tokens that may still come; the match that a lookup
    found and what it could propose at most; whether there is a draft model, and its longest draft.
    """

    depth: int
    left: int
    match: int = 0
    lookup: int = 0
    model: int = 0


class DraftPolicy(Protocol):
    """What decides about each round."""

    def begin(self) -> None:
        """Another request begins."""

    def choose(self, now: Situation) -> Choice:
        """Return how to go on."""

    def judged(self, source: str, match: int, length: int, kept: int) -> None:
        """Of a draft so many tokens were kept: it was verified, or compared with what came without it."""

    def would_have_kept(self, shares: Iterable[float]) -> None:
        """How likely each of some tokens, generated alone, was to be kept, had the draft model proposed it."""

    def took(self, choice: Choice, depth: int, seconds: float) -> None:
        """How long a choice took, until the next one could be made."""


def account_of(source: str, match: int) -> str:
    """Return under which name drafts of a source are judged: lookups by the length of their match."""
    if source != LOOKUP:
        return source
    return LOOKUP + str(max(bound for bound in MATCH_CLASSES if bound <= max(match, MATCH_CLASSES[0])))


@dataclass(slots=True)
class FixedLength:
    """The draft model always proposes as many tokens; in its place a lookup with a long match.

    It goes by nothing that was measured, so that the same request is drafted in the same way again.
    """

    length: int

    def begin(self) -> None:
        pass

    def choose(self, now: Situation) -> Choice:
        if now.match >= MIN_LOOKUP and now.lookup:
            return Choice(LOOKUP, min(MAX_FIXED_LOOKUP, now.match, now.lookup, now.left))
        length = min(self.length, now.model, now.left)
        return Choice(MODEL, length) if length else Choice(ALONE)

    def judged(self, source: str, match: int, length: int, kept: int) -> None:
        pass

    def would_have_kept(self, shares: Iterable[float]) -> None:
        pass

    def took(self, choice: Choice, depth: int, seconds: float) -> None:
        pass


@dataclass(slots=True)
class AdaptiveLength:
    """The source and the length that are expected to pay, see the module. For all requests that sample alike."""

    costs: CostModel = field(default_factory=CostModel)
    acceptance: AcceptanceEstimate = field(default_factory=lambda: AcceptanceEstimate(GUESSES.__getitem__))
    _stretch: int = FIRST_ALONE  # of the next rest
    _resting: int = 0  # tokens that are still to come without the draft model
    _rounds: int = 0

    def begin(self) -> None:
        self._stretch, self._resting = FIRST_ALONE, 0
        self.acceptance.another_text()

    def choose(self, now: Situation) -> Choice:
        times = self.costs.at(now.depth)
        alone = times.seconds(ALONE, 0)
        if alone is None or times.times(ALONE, 0) < FIRST_TIMES:
            return Choice(ALONE)
        best, rate = self._best(times, replace(now, model=0) if self._resting else now)
        if self._resting:
            self._resting -= 1
            if rate * alone > MARGIN:
                return best
            return Choice(ALONE) if self._resting or not now.model else Choice(REVIEW)
        if rate * alone > MARGIN:
            return self._probe(best, times, now)
        if now.model:
            self._resting, self._stretch = self._stretch, min(2 * self._stretch, MAX_ALONE)
        return Choice(ALONE)

    def _best(self, times: RoundTimes, now: Situation) -> tuple[Choice, float]:
        """Return the best draft there is, and its rate in tokens per second; 0 if there is none."""
        best, highest = Choice(ALONE), 0.0
        for source, limit in ((LOOKUP, now.lookup), (MODEL, now.model)):
            expected = 1.0
            chances = self.acceptance.chances(account_of(source, now.match), min(limit, now.left))
            for length, chance in enumerate(chances, 1):
                expected += chance
                if chance < MIN_CHANCE:
                    break
                if length in _WEIGHED and expected > highest * (seconds := times.seconds(source, length) or 1e9):
                    best, highest = Choice(source, length), expected / seconds
        return best, highest

    def _probe(self, best: Choice, times: RoundTimes, now: Situation) -> Choice:
        self._rounds += 1
        if self._rounds % PROBE or times.times(best.source, best.length) < MIN_TIMES:
            return best
        step = 1 if self._rounds % (2 * PROBE) else -1
        place = LENGTHS.index(best.length) + step
        limit = min(now.lookup if best.source == LOOKUP else now.model, now.left)
        if 0 <= place < len(LENGTHS) and LENGTHS[place] <= limit:
            return Choice(best.source, LENGTHS[place])
        return best

    def judged(self, source: str, match: int, length: int, kept: int) -> None:
        self.acceptance.judged(account_of(source, match), length, kept)
        if source == MODEL and kept == length:
            self._stretch = FIRST_ALONE

    def would_have_kept(self, shares: Iterable[float]) -> None:
        for share in shares:
            self.acceptance.would_have_kept(MODEL, share)

    def took(self, choice: Choice, depth: int, seconds: float) -> None:
        times = self.costs.at(depth)
        if choice.source == ALONE:
            times.add(ALONE, 0, seconds)
        elif choice.source != REVIEW:
            times.add(choice.source, choice.length, seconds)


_WEIGHED = frozenset(LENGTHS)
