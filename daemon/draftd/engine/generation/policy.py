"""How to go on: which source drafts, and how many tokens. Pure.

Theory of operation. A round is worth the tokens that it is expected to yield in the time that it takes. Of all
sources and lengths the one with the best rate is chosen; going on without a draft is one of them, unless the
length is fixed. Chances and times are learnt from the rounds (`estimates`). What is uncertain is tried by three
rules:

1. A length that was never timed is hoped to take no longer than the next shorter one: it is tried if that would
   make it the best.
2. Every PROBE rounds the neighbour of the chosen length is taken, once the longer and once the shorter one.
3. Where no draft pays, the target model rests from the draft model, for twice as many tokens each time. Then the
   draft model reads them, which tells what it would have proposed for the last of them: that is the review.

Lookups cost nothing to find, so they are judged in every round, whether they were verified or not.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from draftd.engine.generation.estimates import ALONE, AcceptanceEstimate, CostModel, RoundTimes
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER

REVIEW = "review"
MATCH_CLASSES = (3, 5, 9, 17)  # tokens of the shortest match of each class
GUESSES = {MODEL_DRAFTER: 0.85, "lookup3": 0.5, "lookup5": 0.65, "lookup9": 0.8, "lookup17": 0.9}
LENGTHS = (*range(1, 9), 10, 12, 16, 24, 32, 48, 64)  # in draft tokens; of others only a fixed one is weighed
PROBE = 32  # rounds
FIRST_TIMES = 4  # tokens that go alone before anything is compared with them
FIRST_REST, MAX_REST = 16, 256  # tokens
MIN_CHANCE = 0.02  # of being kept that a token must have to be weighed
MARGIN = 1.02  # a draft must promise so much more than going on alone


@dataclass(frozen=True, slots=True)
class Choice:
    """A source of drafts and a length. ALONE is one token without a draft; REVIEW has the draft model read what
    it has not read, so that the next choice can be made.
    """

    source: str
    length: int = 0


@dataclass(frozen=True, slots=True)
class Situation:
    """What a choice is made for: the depth of the context and the tokens that may still come; the match that a
    lookup found and what it could propose at most; the longest draft of the draft model, 0 without one.
    """

    depth: int
    left: int
    match: int = 0
    lookup: int = 0
    model: int = 0


def account_of(source: str, match: int) -> str:
    """Return under which name drafts of a source are judged: lookups by the length of their match."""
    if source != LOOKUP_DRAFTER:
        return source
    return LOOKUP_DRAFTER + str(
        max(bound for bound in MATCH_CLASSES if bound <= max(match, MATCH_CLASSES[0]))
    )


@dataclass(slots=True)
class DraftPolicy:
    """See the module. One for all requests that sample alike.

    `fixed` is the length of each draft of the draft model, which then always drafts unless a lookup promises
    more; None lets the length adapt itself.
    """

    costs: CostModel = field(default_factory=CostModel)
    fixed: int | None = None
    acceptance: AcceptanceEstimate = field(default_factory=lambda: AcceptanceEstimate(GUESSES.__getitem__))
    _rest: int = FIRST_REST  # the length of the next one
    _resting: int = 0  # tokens that are still to come without the draft model
    _rounds: int = 0

    def begin(self) -> None:
        """Another request begins."""
        self._rest, self._resting = FIRST_REST, 0
        self.acceptance.another_text()

    def choose(self, now: Situation) -> Choice:
        """Return how to go on."""
        times = self.costs.at(now.depth)
        if self.fixed is not None and now.model:
            return self._best(times, now, fixed=min(self.fixed, now.left))[0]
        if times.times(ALONE, 0) < FIRST_TIMES:
            return Choice(ALONE)
        best, rate = self._best(times, replace(now, model=0) if self._resting else now)
        pays = rate * times.seconds(ALONE, 0) > MARGIN
        if self._resting:
            self._resting -= 1
            return best if pays else Choice(ALONE if self._resting or not now.model else REVIEW)
        if pays:
            return self._probe(best, now)
        if now.model:
            self._resting, self._rest = self._rest, min(2 * self._rest, MAX_REST)
        return Choice(ALONE)

    def _best(self, times: RoundTimes, now: Situation, fixed: int | None = None) -> tuple[Choice, float]:
        """Return the draft with the best rate, and the rate in tokens per second; 0 if there is none."""
        best, highest = Choice(ALONE), 0.0
        for source, limit in ((MODEL_DRAFTER, fixed or now.model), (LOOKUP_DRAFTER, now.lookup)):
            weighed = (fixed,) if fixed and source == MODEL_DRAFTER else LENGTHS
            expected = 1.0
            chances = self.acceptance.chances(account_of(source, now.match), min(limit, now.left))
            for length, chance in enumerate(chances, 1):
                expected += chance
                if chance < MIN_CHANCE and not fixed:
                    break
                if length in weighed and expected > highest * (seconds := times.seconds(source, length)):
                    best, highest = Choice(source, length), expected / seconds
        return best, highest

    def _probe(self, best: Choice, now: Situation) -> Choice:
        self._rounds += 1
        if self._rounds % PROBE:
            return best
        place = LENGTHS.index(best.length) + (1 if self._rounds % (2 * PROBE) else -1)
        limit = min(now.lookup if best.source == LOOKUP_DRAFTER else now.model, now.left)
        fits = 0 <= place < len(LENGTHS) and LENGTHS[place] <= limit
        return Choice(best.source, LENGTHS[place]) if fits else best

    def judged(self, source: str, match: int, length: int, kept: int) -> None:
        """Of a draft so many tokens were kept: it was verified, or compared with what came without it."""
        self.acceptance.judged(account_of(source, match), length, kept)
        if source == MODEL_DRAFTER and kept == length:
            self._rest = FIRST_REST

    def would_have_kept(self, shares: Iterable[float]) -> None:
        """How likely each of some tokens, generated alone, was to be kept, had the draft model proposed it."""
        for share in shares:
            self.acceptance.would_have_kept(MODEL_DRAFTER, share)

    def took(self, choice: Choice, depth: int, seconds: float) -> None:
        """How long a choice took, until the next one could be made."""
        self.costs.at(depth).add(choice.source, choice.length, seconds)
