"""How to go on: which source drafts, and how many tokens. Pure.

Theory of operation. A round is worth the tokens that it is expected to yield in the time that it takes. Of all
sources and lengths the one with the best rate is chosen; going on without a draft is one of them, unless the
length is fixed. Chances and times are learnt from the rounds (`estimates`, `round_times`). What the draft
model has yet to read of a text counts as well: the time of that is shared by the tokens that may be expected of the
answer. What is uncertain is tried by two rules:

1. A time is hoped to be shorter, the longer ago it was taken, that of going on alone soonest of all; and what was
   never timed is hoped to be cheap. But none is tried that is more than twice the longest so far. What is hoped to
   be best is a trial.
2. Where no draft pays, the draft model reads now and then what came without it, which tells what it would have
   proposed: that is the review, and a trial too.

Trials may cost TRIED_SHARE of the time, beside what they bring. So drafting is hardly ever slower than going on
alone, however little there is to gain.

Lookups cost nothing to find, so they are judged in every round, whether they were verified or not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from operator import attrgetter
from typing import NamedTuple

from draftd.engine.generation.choices import ALONE, MAX_LATE, REVIEW, Choice, Situation, account_of
from draftd.engine.generation.estimates import AcceptanceEstimate
from draftd.engine.generation.round_times import CostModel, RoundTimes
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER

GUESSES = {MODEL_DRAFTER: 0.85, "lookup3": 0.5, "lookup5": 0.65, "lookup9": 0.8, "lookup17": 0.9}
LENGTHS = (*range(1, 9), 10, 12, 16, 24, 32, 48, 64)  # in draft tokens; of others only a fixed one is weighed
FIRST_LIMIT = 4  # tokens of a draft before any was timed
FIRST_TIMES = 4  # rounds without a draft before anything is compared with them
MIN_REVIEWED = 16  # tokens
MAX_UNREAD = 2  # tokens that the draft model has not read after a round of its own
TRIED_SHARE = 0.0125  # of the time, for trials
MAX_CREDIT = 20.0  # tokens that come alone in the time that is kept for trials
USUAL_ANSWER = 256  # tokens, before any answer has ended
NEWEST_ANSWER = 0.2  # weight of its length
MARGIN = 1.02  # times what going on alone gives a draft must promise: less may be noise
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
    usual: float = USUAL_ANSWER  # tokens of an answer
    _alone: int = 0  # tokens of this answer since the draft model has read
    _credit: float = MAX_CREDIT  # tokens that come alone in the time that trials may take
    _trial: Choice | None = None  # what is being tried, and the tokens that have come of it
    _tokens: int = 0
    _rate: float = 1.0  # in tokens per second, that there would have been without the trial
    _reads_on: bool = False  # whether the draft model has to read before it drafts
    _first: int = 0  # tokens that were left at the first choice of this answer, and at the last one
    _last: int = 0

    def begin(self) -> None:
        """Another request begins."""
        if self._first:
            self.usual += NEWEST_ANSWER * (self._first - self._last - self.usual)
        self._alone = self._first = 0
        self.acceptance.another_text()

    def choose(self, now: Situation) -> Choice:
        """Return how to go on."""
        self._first, self._last = self._first or now.left, now.left
        times, row = self.costs.at(now.depth), Row(self, now)
        if not row.drafts_always and times.times(ALONE, 0) < FIRST_TIMES:
            return Choice(ALONE)
        found = rounds([row], times)
        best, hope = max(found, key=attrgetter("rate")), max(found, key=attrgetter("hoped_rate"))
        choice, trial = Choice(best.source, best.length), Choice(hope.source, hope.length)
        costs = hope.seconds - hope.tokens / best.rate
        if trial == choice == Choice(ALONE) and now.model and self._alone >= MIN_REVIEWED:
            trial, costs = Choice(REVIEW, now.unread), times.seconds(REVIEW, now.unread.bit_length())
        self._trial, self._rate, self._tokens = None, best.rate, 0
        if trial != choice and costs <= self._credit * times.seconds(ALONE, 0):
            choice = self._trial = trial
        self._alone = 0 if choice.source in {MODEL_DRAFTER, REVIEW} else self._alone + 1
        self._reads_on = MAX_UNREAD < now.unread <= MAX_LATE  # more than that it reads before
        return choice

    def judged(self, source: str, match: int, length: int, kept: int) -> None:
        """Note how many tokens of a draft were kept: it was verified, or compared with what came without it."""
        if self._trial and self._trial.source == source:
            self._tokens = kept + 1
        self.acceptance.judged(account_of(source, match), length, kept)

    def would_have_kept(self, shares: Iterable[float]) -> None:
        """How likely each of some tokens, generated alone, was to be kept, had the draft model proposed it."""
        for share in shares:
            self.acceptance.judged(MODEL_DRAFTER, 1, share)

    def took(self, choice: Choice, depth: int, seconds: float) -> None:
        """How long a choice took, until the next one could be made; reading of the draft model is a REVIEW too."""
        times = self.costs.at(depth)
        alone = times.seconds(ALONE, 0)
        self._credit += TRIED_SHARE * seconds / alone
        if self._trial and self._trial.source == choice.source:
            costs = (seconds - self._tokens / self._rate) / alone
            self._credit = min(MAX_CREDIT, max(-MAX_CREDIT, self._credit - costs))
            self._trial = None
        if choice.source != MODEL_DRAFTER or not self._reads_on:  # else it took longer than it usually will
            length = choice.length.bit_length() if choice.source == REVIEW else choice.length
            times.add(choice.source, length, seconds)


@dataclass(slots=True)
class Row:
    """One sequence in a round: its policy, and its situation."""

    policy: DraftPolicy
    now: Situation
    _expected: dict[str, list[float]] = field(default_factory=dict)

    @property
    def drafts_always(self) -> bool:
        """Whether the draft model drafts whatever comes of it, as far as only this sequence is asked."""
        return self.policy.fixed is not None and self.longest(MODEL_DRAFTER) > 0

    def longest(self, source: str) -> int:
        """Return how many tokens a source may draft at most: the last of an answer comes without a draft anyway."""
        if source == LOOKUP_DRAFTER:
            return min(self.now.left - 1, self.now.lookup)
        fixed = self.now.model if self.policy.fixed is None else self.policy.fixed
        return min(self.now.left - 1, self.now.model, fixed)

    def expected(self, source: str) -> list[float]:
        """Return how many tokens a round is expected to yield with drafts of 0 to LENGTHS[-1] tokens."""
        if source not in self._expected:
            yields = [1.0]
            account = account_of(source, self.now.match)
            for chance in self.policy.acceptance.chances(account, min(self.longest(source), LENGTHS[-1])):
                if chance < MIN_CHANCE:
                    break
                yields.append(yields[-1] + chance)
            self._expected[source] = yields + [yields[-1]] * (LENGTHS[-1] + 1 - len(yields))
        return self._expected[source]

    def in_pass(self, source: str) -> list[float]:
        """Return the same where others have drafts of a source: beside a draft model a lookup costs nothing."""
        if source == LOOKUP_DRAFTER or not self.now.lookup:
            return self.expected(source)
        return list(map(max, self.expected(MODEL_DRAFTER), self.expected(LOOKUP_DRAFTER)))

    def drafting(self, source: str, length: int) -> Choice:
        """Return the choice to draft as many tokens as the others of the pass, as far as they can be had."""
        if source == MODEL_DRAFTER and self.in_pass(source)[length] > self.expected(source)[length]:
            source = LOOKUP_DRAFTER
        length = min(length, self.longest(source)) if length else 0
        return Choice(source, length) if length else Choice(ALONE)

    @property
    def reading(self) -> float:
        """Seconds that the draft model has to read before it drafts, for each token that will come of it."""
        if self.now.unread <= MAX_LATE or self.drafts_always:
            return 0.0
        times = self.policy.costs.at(self.now.depth)
        seconds = times.seconds(REVIEW, self.now.unread.bit_length())
        return seconds / max(1.0, min(self.now.left, self.policy.usual))


class Round(NamedTuple):
    """A way to go on: what drafts, how many tokens, and what is expected of all rows.

    It takes some `seconds` by what is known, and at best as many as are `hoped` for.
    """

    source: str
    length: int
    tokens: float
    seconds: float
    hoped: float

    @property
    def rate(self) -> float:
        """In tokens per second."""
        return self.tokens / self.seconds

    @property
    def hoped_rate(self) -> float:
        """In tokens per second."""
        return self.tokens / self.hoped


def rounds(rows: Sequence[Row], times: RoundTimes, *, bold: bool = False) -> list[Round]:
    """Return all ways to go on for rows that share a pass; without a draft is the first, unless there must be one.

    Padded rows cost as much as used ones, so all may draft as many tokens, each from what promises more for it.
    With `bold` they may be longer than it is prudent to try.
    """
    count, always = len(rows), len(rows) == 1 and rows[0].drafts_always
    alone, hoped = (each / MARGIN for each in times.estimate(ALONE, 0, count))
    found = [] if always else [Round(ALONE, 0, count, alone, hoped)]
    for source in (MODEL_DRAFTER, LOOKUP_DRAFTER):
        most = max(row.longest(source) for row in rows)
        if always and source == MODEL_DRAFTER:
            lengths: Iterable[int] = (most,)
        else:
            tried = LENGTHS[-1] if always or bold else max(FIRST_LIMIT, 2 * times.longest(source, count))
            lengths = takewhile(min(most, tried).__ge__, LENGTHS)
        yields = list(map(sum, zip(*(row.in_pass(source) for row in rows), strict=True))) if most else []
        reading = sum(row.reading for row in rows) / count if source == MODEL_DRAFTER else 0.0
        for length in lengths:
            seconds, hoped = times.estimate(source, length, count)
            tokens = yields[length]
            late = seconds + reading * tokens
            found.append(Round(source, length, tokens, late, late if reading else hoped))
    return found
