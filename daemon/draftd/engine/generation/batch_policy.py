"""How several sequences go on: who shares a pass, with one draft length for all, and who has a turn. Pure.

Theory of operation. In a round each sequence gets on once: in a pass that it shares with others, or in a turn of
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
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from draftd.engine.generation.choices import ALONE, REVIEW, Choice, Situation, account_of
from draftd.engine.generation.pass_times import PassTimes, PassTimesByDepth
from draftd.engine.generation.policy import FIRST_TIMES, LENGTHS, DraftPolicy
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER

PROBE = 32  # rounds
MAX_REST = 256  # rounds
MAX_APART = 128  # rounds
MAX_SETTLED = (
    3  # rounds until it is looked again whether a draft pays, if no lookup finds anything: it takes time
)
MARGIN = 1.01  # a draft must promise so much more than going on alone
TURN_MARGIN = 1.03  # and a turn so much more than all get otherwise


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: its own policy, and its situation."""

    policy: DraftPolicy
    now: Situation

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
        """Return the choice to draft so many tokens, as far as they can be had."""
        limit = min(length, self.longest(source))
        return Choice(source, limit) if limit else Choice(ALONE)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn of its own promises for a row."""

    row: Row
    source: str
    tokens: float
    seconds: float

    @classmethod
    def of(cls, row: Row) -> "Turn":
        """Ask its own policy."""
        choice, rate = row.policy.best(row.now)
        tokens = row.expected(choice.source, choice.length)[-1] if choice.length else 1.0
        return cls(row, choice.source, tokens, tokens / rate)

    @property
    def rate(self) -> float:
        """In tokens per second."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """A round: a pass of so long drafts from a source for some rows, and turns for the others."""

    together: Sequence[Row]
    turns: Sequence[Turn]
    source: str
    length: int
    tokens: float
    seconds: float

    @property
    def rate(self) -> float:
        """In tokens per second."""
        return self.tokens / self.seconds


@dataclass(slots=True)
class BatchPolicy:
    """See the module. One for all batches of two models."""

    _times: PassTimesByDepth = field(default_factory=PassTimesByDepth)
    _rounds: int = 0
    _resting: int = 0  # rounds without the draft model
    _reviews: int = 0
    _apart: int = 0  # rounds in which all had turns
    _settled: tuple[int, int] = (0, 0)  # so many rows go on alone, for so many more rounds

    def choose(self, rows: Sequence[Row]) -> list[Choice | None]:
        """Return how each row goes on; None for one that has a turn, and whose own policy decides."""
        drafting = any(row.now.model for row in rows)
        if self._resting >= MAX_REST and drafting:
            self._resting = 0
            return self._review(rows)
        if any(not row.policy.knows_times(row.now.depth) for row in rows):
            return [None] * len(rows)
        if self._at(rows).passes.times(len(rows)) < FIRST_TIMES or self._apart >= MAX_APART:
            self._apart = 0
            return [Choice(ALONE)] * len(rows)
        found = any(row.now.match for row in rows)
        count, left = self._settled
        if left and count == len(rows) and not found:
            self._settled = count, left - 1
            self._resting += drafting
            return [Choice(ALONE)] * len(rows)
        plan = self._best_plan(rows)
        self._settled = len(rows), 0 if found or plan.turns or plan.length else MAX_SETTLED
        used = {plan.source, *(turn.source for turn in plan.turns)}
        self._resting = self._resting + 1 if drafting and MODEL_DRAFTER not in used else 0
        self._apart = 0 if plan.together else self._apart + 1
        length = self._probed(plan.length) if plan.length else 0
        shared = {id(row) for row in plan.together}
        return [self._choice(row, plan.source, length) if id(row) in shared else None for row in rows]

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

    def _best_plan(self, rows: Sequence[Row]) -> Plan:
        """Take those out of the pass, the best first, of which a turn promises more than all get otherwise."""
        turns = sorted(map(Turn.of, rows), key=lambda turn: turn.rate, reverse=True)
        best, count = self._plan(turns, 0), 0
        while (better := sum(turn.rate > TURN_MARGIN * best.rate for turn in turns)) > count:
            count = better
            best = max(best, self._plan(turns, count), key=lambda plan: plan.rate)
        apart = self._plan(turns, len(turns))
        return apart if apart.rate > TURN_MARGIN * best.rate else best

    def _plan(self, turns: Sequence[Turn], count: int) -> Plan:
        """Return what there is to expect if the first so many rows have turns; no pass has a single row."""
        if len(turns) - count < 2:
            count = len(turns)
        own, rows = turns[:count], [turn.row for turn in turns[count:]]
        tokens, seconds = sum(turn.tokens for turn in own), sum(turn.seconds for turn in own)
        if not rows:
            return Plan(rows, own, ALONE, 0, tokens, seconds)
        source, length, expected, took = self._best_draft(rows, self._at(rows))
        return Plan(rows, own, source, length, tokens + expected, seconds + took)

    def _best_draft(self, rows: Sequence[Row], times: PassTimes) -> tuple[str, int, float, float]:
        """Return the source and the length of the best drafts in a pass, and what it yields in how many seconds."""
        count, passes, drafts = len(rows), times.passes, times.drafts(len(rows))
        alone = passes.hoped(count)
        best: tuple[str, int, float, float] = (ALONE, 0, count, alone)
        if passes.times(count) < FIRST_TIMES:
            return best
        highest = MARGIN * count / alone
        by_model = max(row.longest(MODEL_DRAFTER) for row in rows)
        by_lookup = max(row.longest(LOOKUP_DRAFTER) for row in rows)
        limits = {
            MODEL_DRAFTER: min(by_model, 2 * max(1, drafts.largest) - 1),
            LOOKUP_DRAFTER: min(by_lookup, 2 * passes.largest // count - 1),
        }
        looked_up = [row.expected(LOOKUP_DRAFTER, max(limits.values())) for row in rows]
        drafted = [row.expected(MODEL_DRAFTER, limits[MODEL_DRAFTER]) for row in rows]
        for source, limit in limits.items():
            for length in LENGTHS:
                if length > limit:
                    break
                if source == MODEL_DRAFTER:
                    pairs = zip(drafted, looked_up, strict=True)
                    expected = sum(max(one[length], other[length]) for one, other in pairs)
                    seconds = drafts.hoped(length + 1)
                else:
                    expected = sum(one[length] for one in looked_up)
                    seconds = passes.hoped(count * (length + 1))
                if expected / seconds > highest:
                    best, highest = (source, length, expected, seconds), expected / seconds
        return best

    def _probed(self, length: int) -> int:
        self._rounds += 1
        if self._rounds % PROBE:
            return length
        place = LENGTHS.index(length) + (1 if self._rounds % (2 * PROBE) else -1)
        return LENGTHS[place] if 0 <= place < len(LENGTHS) else length

    def _choice(self, row: Row, source: str, length: int) -> Choice:
        """Let a row draft from what promises more for it."""
        if not length:
            return Choice(ALONE)
        lookup, model = (row.expected(each, length)[length] for each in (LOOKUP_DRAFTER, MODEL_DRAFTER))
        by_model = source == MODEL_DRAFTER and model >= lookup
        return row.drafting(MODEL_DRAFTER if by_model else LOOKUP_DRAFTER, length)
