"""How to go on: which source drafts, and how many tokens. Pure.

Theory of operation. A round is worth the tokens that it is expected to yield in the time that it takes. Of all
sources and lengths the one with the best rate is chosen; going on without a draft is one of them, unless the
length is fixed. Chances and times are learnt from the rounds (`estimates`). What the draft model has yet to read of
the text counts as well: the time of that is shared by the tokens that may be expected of the answer. What is
uncertain is tried by two rules:

1. A time is hoped to be shorter, the longer ago it was taken, and most if it never was. So each length is tried
   again, the sooner the nearer it was to the best; but none that is more than twice the longest so far.
2. Where no draft pays, the draft model reads now and then what came without it, which tells what it would have
   proposed: that is the review. Reviews may take REVIEW_SHARE of the time.

Lookups cost nothing to find, so they are judged in every round, whether they were verified or not.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from draftd.engine.generation.choices import ALONE, REVIEW, Choice, Situation, account_of
from draftd.engine.generation.estimates import AcceptanceEstimate, CostModel, RoundTimes
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER

GUESSES = {MODEL_DRAFTER: 0.85, "lookup3": 0.5, "lookup5": 0.65, "lookup9": 0.8, "lookup17": 0.9}
LENGTHS = (*range(1, 9), 10, 12, 16, 24, 32, 48, 64)  # in draft tokens; of others only a fixed one is weighed
WEIGHED = frozenset(LENGTHS)
FIRST_LIMIT = 4  # tokens of a draft before any was timed
FIRST_TIMES = 4  # tokens that go alone before anything is compared with them
MIN_REVIEWED = 16  # tokens
MAX_UNREAD = 2  # tokens that the draft model has not read after a round of its own
REVIEW_SHARE = 0.015  # of the time
MAX_SAVED = 8  # tokens that come alone in the time that is kept for further reviews
USUAL_ANSWER = 256  # tokens, before any answer has ended
NEWEST_ANSWER = 0.2  # weight of its length
MIN_CHANCE = 0.02  # of being kept that a token must have to be weighed


@dataclass(slots=True)
class DraftPolicy:
    """See the module. One for all requests that sample alike.

    `fixed` is the length of each draft of the draft model, which then always drafts unless a lookup promises
    more; None lets the length adapt itself.
    """

    costs: CostModel = field(default_factory=CostModel)
    fixed: int | None = None
    acceptance: AcceptanceEstimate = field(default_factory=lambda: AcceptanceEstimate(GUESSES.__getitem__))
    _alone: int = 0  # tokens of this answer since the draft model has read
    _credit: float = 0.0  # seconds that a review may take
    _reads_on: bool = False  # whether the draft model has to read before it drafts
    _usual: float = USUAL_ANSWER  # tokens of an answer
    _first: int = 0  # tokens that were left at the first choice of this answer, and at the last one
    _last: int = 0

    def begin(self) -> None:
        """Another request begins."""
        if self._first:
            self._usual += NEWEST_ANSWER * (self._first - self._last - self._usual)
        self._alone = self._first = 0
        self.acceptance.another_text()

    def choose(self, now: Situation) -> Choice:
        """Return how to go on."""
        self._first, self._last = self._first or now.left, now.left
        drafts_always = self.fixed is not None and now.model
        if not drafts_always and not self.knows_times(now.depth):
            return Choice(ALONE)
        choice, _ = self.best(now)
        if choice.source == ALONE and self._may_review(now):
            choice = Choice(REVIEW, now.unread)
        self._alone = 0 if choice.source in {MODEL_DRAFTER, REVIEW} else self._alone + 1
        self._reads_on = MAX_UNREAD < now.unread <= MIN_REVIEWED  # more than that it reads before
        return choice

    def best(self, now: Situation) -> tuple[Choice, float]:
        """Return what promises most, and its rate in tokens per second; without taking it."""
        times = self.costs.at(now.depth)
        fixed = min(self.fixed, now.left) if self.fixed is not None and now.model else None
        choice, rate = self._best(times, now, fixed)
        alone = 1 / times.seconds(ALONE, 0)
        return (choice, rate) if fixed or rate > alone else (Choice(ALONE), alone)

    def knows_times(self, depth: int) -> bool:
        """Whether there is something to compare drafts with."""
        return self.costs.at(depth).times(ALONE, 0) >= FIRST_TIMES

    def _may_review(self, now: Situation) -> bool:
        times = self.costs.at(now.depth)
        seconds = times.seconds(REVIEW, now.unread.bit_length())
        if not now.model or self._alone < MIN_REVIEWED or self._credit < seconds:
            return False
        self._credit = min(self._credit - seconds, MAX_SAVED * times.seconds(ALONE, 0))
        return True

    def _best(self, times: RoundTimes, now: Situation, fixed: int | None = None) -> tuple[Choice, float]:
        """Return the draft with the best rate, and the rate in tokens per second; 0 if there is none."""
        best, highest = Choice(ALONE), 0.0
        for source, limit in ((MODEL_DRAFTER, fixed or now.model), (LOOKUP_DRAFTER, now.lookup)):
            lengths = {fixed} if fixed and source == MODEL_DRAFTER else WEIGHED
            late = source == MODEL_DRAFTER and now.unread > MIN_REVIEWED and not fixed
            seconds = times.seconds if late else times.hoped
            reading = times.seconds(REVIEW, now.unread.bit_length()) if late else 0.0
            reading /= max(1.0, min(now.left, self._usual))
            tried = LENGTHS[-1] if fixed else max(FIRST_LIMIT, 2 * times.longest(source))
            expected = 1.0
            chances = self.acceptance.chances(account_of(source, now.match), min(limit, now.left, tried))
            for length, chance in enumerate(chances, 1):
                expected += chance
                if chance < MIN_CHANCE and not fixed:
                    break
                if length in lengths:
                    rate = 1 / (seconds(source, length) / expected + reading)
                    if rate > highest:
                        best, highest = Choice(source, length), rate
        return best, highest

    def judged(self, source: str, match: int, length: int, kept: int) -> None:
        """Note how many tokens of a draft were kept: it was verified, or compared with what came without it."""
        self.acceptance.judged(account_of(source, match), length, kept)

    def would_have_kept(self, shares: Iterable[float]) -> None:
        """How likely each of some tokens, generated alone, was to be kept, had the draft model proposed it."""
        for share in shares:
            self.acceptance.judged(MODEL_DRAFTER, 1, share)

    def took(self, choice: Choice, depth: int, seconds: float) -> None:
        """How long a choice took, until the next one could be made; reading of the draft model is a REVIEW too."""
        self._credit += REVIEW_SHARE * seconds
        if choice.source == MODEL_DRAFTER and self._reads_on:
            return  # that took longer than it will in the rounds to come
        reads = choice.source == REVIEW
        self.costs.at(depth).add(
            choice.source, choice.length.bit_length() if reads else choice.length, seconds
        )
