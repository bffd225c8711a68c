"""How several sequences go on: who shares a pass, with one draft length for all, and who has a turn. Pure.

Theory of operation. Each sequence has its part in a round: in a pass that it shares with others, or in a turn of
its own, as its own policy decides then. Rows of a pass that are padded cost as much as those that are used, so all
rows may draft as many tokens, each from the source that promises more for it; 0 is one of the lengths. Of all ways
to go on the one is chosen with which all together are expected to get the most tokens for the time that the round
takes. So it depends on the device what is done: where rows cost next to nothing all share a pass; where each costs
the same a long draft has a turn, and the others are not padded to it.

How long passes take is learnt as they come, see `pass_times`; how often tokens are kept, and how long turns take,
is what each sequence's own policy knows. A fixed length is the longest here: where others wait, a draft must pay.

What is uncertain is tried by these rules: what was not timed is hoped to be cheap, but at most twice as much is
tried as was ever timed; a time is hoped to be shorter the longer ago it was taken; every PROBE rounds the neighbour
of the best length is taken. After MAX_APART rounds of turns there is one for all. After MAX_REST rounds without a
draft the draft model reads what it has not of one text, to see what it would have proposed.

A decision takes time itself, so it holds for HELD rounds, unless somebody joins or leaves, or lookups find another
kind of match; and so does what a row promises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from draftd.engine.generation.choices import ALONE, REVIEW, Choice, Situation, account_of
from draftd.engine.generation.estimates import SMALLEST_DEPTH
from draftd.engine.generation.pass_times import PassTimes, PassTimesByDepth
from draftd.engine.generation.policy import FIRST_TIMES, LENGTHS, DraftPolicy
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER

PROBE = 32  # rounds
MAX_REST = 256  # rounds
MAX_APART = 128  # rounds
HELD = 4  # rounds
MARGIN = 1.01  # a draft must promise that many times what going on alone does
TURN_MARGIN = 1.03  # and a turn that many times what all get otherwise


Kind = tuple[int, str, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: its own policy, and its situation."""

    policy: DraftPolicy
    now: Situation

    @property
    def kind(self) -> Kind:
        """What its part in a decision depends on, beside what is learnt from round to round."""
        now = self.now
        account = account_of(LOOKUP_DRAFTER, now.match) if now.match else ""
        left = min(now.left, LENGTHS[-1])
        depth = (now.depth // SMALLEST_DEPTH).bit_length()
        return id(self.policy), account, now.lookup, now.model, left, depth, now.unread.bit_length()

    def expected(self, source: str, limit: int) -> list[float]:
        """Return how many tokens a round is expected to yield with drafts of 0 to `limit` tokens."""
        longest = self.longest(source)
        yields = [1.0]
        for chance in self.policy.acceptance.chances(account_of(source, self.now.match), min(limit, longest)):
            yields.append(yields[-1] + chance)
        return yields + [yields[-1]] * (limit + 1 - len(yields))

    def longest(self, source: str) -> int:
        """Return how many tokens a source may draft at most."""
        if source == LOOKUP_DRAFTER:
            return min(self.now.lookup, self.now.left)
        fixed = self.now.model if self.policy.fixed is None else self.policy.fixed
        return min(self.now.model, fixed, self.now.left)

    def drafting(self, source: str, length: int) -> Choice:
        """Return the choice to draft that many tokens, as far as they can be had."""
        limit = min(length, self.longest(source))
        return Choice(source, limit) if limit else Choice(ALONE)


@dataclass(frozen=True, slots=True)
class Promise:
    """What is to be expected of a row: in a turn of its own, and of drafts of 0 to LENGTHS[-1] tokens in a pass.

    `lookup` and `model` are the longest drafts that there may be.
    """

    source: str
    tokens: float
    seconds: float
    lookup: int
    by_lookup: list[float]
    model: int
    by_model: list[float]

    @classmethod
    def of(cls, row: Row) -> "Promise":
        """Ask its own policy."""
        choice, rate = row.policy.best(row.now)
        tokens = row.expected(choice.source, choice.length)[-1] if choice.length else 1.0
        lookup, model = (
            (row.longest(source), row.expected(source, LENGTHS[-1]))
            for source in (LOOKUP_DRAFTER, MODEL_DRAFTER)
        )
        return cls(choice.source, tokens, tokens / rate, *lookup, *model)

    @property
    def rate(self) -> float:
        """Of a turn, in tokens per second."""
        return self.tokens / self.seconds

    def source_of(self, source: str, length: int) -> str:
        """Return from where it drafts in a pass of such drafts: the source that promises more for it."""
        by_model = source == MODEL_DRAFTER and self.by_model[length] >= self.by_lookup[length]
        return MODEL_DRAFTER if by_model else LOOKUP_DRAFTER


@dataclass(frozen=True, slots=True)
class Plan:
    """A round: one pass for some rows, with drafts of one length, and turns for the others. Rows are numbers."""

    together: Sequence[int]
    turns: Sequence[int]
    source: str
    length: int
    tokens: float
    seconds: float

    @property
    def rate(self) -> float:
        """In tokens per second."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Decision:
    """For each row the source of its drafts, None for a turn; and the drafts' length. It was made for `kinds`."""

    kinds: Sequence[Kind]
    sources: Sequence[str | None]
    length: int
    by_model: bool  # whether the draft model reads for any row


@dataclass(slots=True)
class BatchPolicy:
    """See the module. One for all batches of two models."""

    _times: PassTimesByDepth = field(default_factory=PassTimesByDepth)
    _rounds: int = 0
    _resting: int = 0  # rounds without the draft model
    _reviews: int = 0
    _apart: int = 0  # rounds in which all had turns
    _decision: Decision | None = None
    _left: int = 0  # rounds that it still holds for
    _promises: dict[Kind, Promise] = field(default_factory=dict)

    def choose(self, rows: Sequence[Row]) -> list[Choice | None]:
        """Return how each row goes on; None for one that has a turn, and whose own policy decides."""
        drafting = any(row.now.model for row in rows)
        if self._resting >= MAX_REST and drafting:
            self._resting = 0
            return self._review(rows)
        kinds = [row.kind for row in rows]
        decision = self._held(kinds)
        if decision is None:
            if any(not row.policy.knows_times(row.now.depth) for row in rows):
                return [None] * len(rows)
            if self._at(rows).passes.times(len(rows)) < FIRST_TIMES or self._apart >= MAX_APART:
                self._apart = 0
                return [Choice(ALONE)] * len(rows)
            decision = self._decide(rows, kinds)
        self._resting = self._resting + 1 if drafting and not decision.by_model else 0
        self._apart = 0 if any(decision.sources) else self._apart + 1
        if not decision.length and all(decision.sources):
            return [Choice(ALONE)] * len(rows)
        length = self._probed(decision.length) if decision.length else 0
        pairs = zip(rows, decision.sources, strict=True)
        return [row.drafting(source, length) if source else None for row, source in pairs]

    def _held(self, kinds: Sequence[Kind]) -> Decision | None:
        """Return the decision that holds, if one does."""
        self._left -= 1
        if self._left <= 0:
            self._promises = {}
        holds = (
            self._left > 0 and self._decision and self._decision.kinds == kinds and self._apart < MAX_APART
        )
        return self._decision if holds else None

    def _decide(self, rows: Sequence[Row], kinds: Sequence[Kind]) -> Decision:
        """Make a decision that is to hold, unless a pass of that size was never timed."""
        for row, kind in zip(rows, kinds, strict=True):
            if kind not in self._promises:
                self._promises[kind] = Promise.of(row)
        promises = [self._promises[kind] for kind in kinds]
        times = self._at(rows)
        plan = self._best_plan(promises, times)
        sources: list[str | None] = [None] * len(rows)
        for number in plan.together:
            sources[number] = promises[number].source_of(plan.source, plan.length)
        used = {plan.source, *(promises[number].source for number in plan.turns)}
        self._decision = Decision(kinds, sources, plan.length, MODEL_DRAFTER in used)
        known = times.knows(len(plan.together), plan.source == MODEL_DRAFTER, plan.length)
        self._left = (max(self._left, 0) or HELD) if known else 1
        return self._decision

    def _review(self, rows: Sequence[Row]) -> list[Choice | None]:
        """Let the draft model read for one row, another one each time: the others wait for it."""
        drafting = [number for number, row in enumerate(rows) if row.now.model]
        self._reviews += 1
        reviewed = drafting[self._reviews % len(drafting)]
        return [Choice(REVIEW) if number == reviewed else Choice(ALONE) for number in range(len(rows))]

    def took(self, rows: Sequence[Row], choices: Sequence[Choice], seconds: float) -> None:
        """How long a pass of these choices took."""
        times, length = self._at(rows), max(choice.length for choice in choices)
        if any(choice.source == MODEL_DRAFTER for choice in choices):
            times.drafts(len(rows)).add(length + 1, seconds)
        else:
            times.passes.add(len(rows) * (length + 1), seconds)

    def _at(self, rows: Sequence[Row]) -> PassTimes:
        return self._times.at(max(row.now.depth for row in rows))

    def _best_plan(self, promises: Sequence[Promise], times: PassTimes) -> Plan:
        """Take those out of the pass, the best first, of which a turn promises more than all get otherwise."""
        order = sorted(range(len(promises)), key=lambda number: promises[number].rate, reverse=True)
        best, count = self._plan(promises, order, 0, times), 0
        while (better := sum(one.rate > TURN_MARGIN * best.rate for one in promises)) > count:
            count = better
            best = max(best, self._plan(promises, order, count, times), key=lambda plan: plan.rate)
        apart = self._plan(promises, order, len(order), times)
        return apart if apart.rate > TURN_MARGIN * best.rate else best

    def _plan(self, promises: Sequence[Promise], order: Sequence[int], count: int, times: PassTimes) -> Plan:
        """Return what there is to expect if the first `count` rows have turns; no pass has a single row."""
        if len(order) - count < 2:
            count = len(order)
        own, together = order[:count], order[count:]
        tokens = sum(promises[number].tokens for number in own)
        seconds = sum(promises[number].seconds for number in own)
        if not together:
            return Plan(together, own, ALONE, 0, tokens, seconds)
        source, length, expected, took = best_draft([promises[number] for number in together], times)
        return Plan(together, own, source, length, tokens + expected, seconds + took)

    def _probed(self, length: int) -> int:
        self._rounds += 1
        if self._rounds % PROBE:
            return length
        place = LENGTHS.index(length) + (1 if self._rounds % (2 * PROBE) else -1)
        return LENGTHS[place] if 0 <= place < len(LENGTHS) else length


def best_draft(rows: Sequence[Promise], times: PassTimes) -> tuple[str, int, float, float]:
    """Return the source and the length of the best drafts in a pass, and what it yields in how many seconds."""
    count, passes, drafts = len(rows), times.passes, times.drafts(len(rows))
    alone = passes.hoped(count)
    best: tuple[str, int, float, float] = (ALONE, 0, count, alone)
    if passes.times(count) < FIRST_TIMES:
        return best
    highest = MARGIN * count / alone
    limits = {
        MODEL_DRAFTER: min(max(row.model for row in rows), 2 * max(1, drafts.largest) - 1),
        LOOKUP_DRAFTER: min(max(row.lookup for row in rows), 2 * passes.largest // count - 1),
    }
    for source, limit in limits.items():
        for length in LENGTHS:
            if length > limit:
                break
            if source == MODEL_DRAFTER:
                expected = sum(max(row.by_model[length], row.by_lookup[length]) for row in rows)
                seconds = drafts.hoped(length + 1)
            else:
                expected = sum(row.by_lookup[length] for row in rows)
                seconds = passes.hoped(count * (length + 1))
            if expected / seconds > highest:
                best, highest = (source, length, expected, seconds), expected / seconds
    return best
