"""How several sequences go on: who shares a pass, with one draft length for all, and who has a turn. Pure.

Theory of operation. Each sequence has its part in a round: in a pass that it shares with others, or in a turn of
its own. Of all ways to go on the one is chosen with which all together are expected to get the most tokens for the
time that the round takes. So it depends on the device what is done: where rows cost next to nothing all share a
pass; where each costs the same a long draft has a turn, and the others are not padded to it. What passes take is
learnt as in turns, see `round_times`, for each number of sequences. A fixed length is the longest here: where
others wait, a draft must pay.

Beside the rules of `policy`, what is uncertain is tried by two more: after MAX_APART rounds of turns there is one
for all; after MAX_REST rounds without a draft the draft model reads what it has not of one text, to see what it
would have proposed.

A decision takes time itself, so what is found out holds for HELD rounds for the same situation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from draftd.engine.generation.choices import ALONE, REVIEW, Choice, account_of
from draftd.engine.generation.policy import FIRST_TIMES, LENGTHS, Round, Row, rounds
from draftd.engine.generation.round_times import CostModel, RoundTimes, table_of
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER

MAX_REST = 256  # rounds
MAX_APART = 128  # rounds
HELD = 4  # rounds
TURN_MARGIN = 1.03  # turns must promise that many times what all get in one pass

Kind = tuple[int, str, int, int, int, int, int]


def kind_of(row: Row) -> Kind:
    """Return what its part in a decision depends on, beside what is learnt from round to round."""
    now = row.now
    account = account_of(LOOKUP_DRAFTER, now.match) if now.match else ""
    left, unread = min(now.left, LENGTHS[-1]), now.unread.bit_length()
    return id(row.policy), account, now.lookup, now.model, left, table_of(now.depth), unread


@dataclass(slots=True)
class BatchPolicy:
    """See the module. One for all batches of two models."""

    _costs: CostModel = field(default_factory=CostModel)
    _rounds: int = 0
    _resting: int = 0  # rounds without the draft model
    _reviews: int = 0
    _apart: int = 0  # rounds in which all had turns
    _turns: dict[Kind, tuple[Row, Round]] = field(default_factory=dict)
    _decisions: dict[tuple[Kind, ...], list[Choice | None]] = field(default_factory=dict)

    def choose(self, rows: Sequence[Row]) -> list[Choice | None]:
        """Return how each row goes on; None for one that has a turn, and whose own policy decides."""
        drafting = [number for number, row in enumerate(rows) if row.now.model]
        if self._resting >= MAX_REST and drafting:
            self._resting, self._reviews = 0, self._reviews + 1
            reviewed = drafting[self._reviews % len(drafting)]
            return [Choice(REVIEW if number == reviewed else ALONE) for number in range(len(rows))]
        if any(row.policy.costs.at(row.now.depth).times(ALONE, 0) < FIRST_TIMES for row in rows):
            return [None] * len(rows)
        if self._at(rows).times(ALONE, 0, len(rows)) < FIRST_TIMES or self._apart >= MAX_APART:
            self._apart = 0
            return [Choice(ALONE)] * len(rows)
        choices = self._decided(rows)
        by_model = any(choice is None or choice.source == MODEL_DRAFTER for choice in choices)
        self._resting = 0 if by_model else self._resting + 1
        self._apart = 0 if any(choices) else self._apart + 1
        return choices

    def took(self, rows: Sequence[Row], choices: Sequence[Choice], seconds: float) -> None:
        """How long a pass of these choices took."""
        sources = {choice.source for choice in choices}
        source = next((each for each in (MODEL_DRAFTER, LOOKUP_DRAFTER) if each in sources), ALONE)
        self._at(rows).add(source, max(choice.length for choice in choices), seconds, len(rows))

    def _at(self, rows: Sequence[Row]) -> RoundTimes:
        return self._costs.at(max(row.now.depth for row in rows))

    def _decided(self, rows: Sequence[Row]) -> list[Choice | None]:
        """Return what is decided for such rows, which holds for some rounds."""
        self._rounds += 1
        if self._rounds % HELD == 0:
            self._turns, self._decisions = {}, {}
        kinds = tuple(map(kind_of, rows))
        if kinds not in self._decisions:
            for kind, row in zip(kinds, rows, strict=True):
                if kind not in self._turns:
                    self._turns[kind] = row, _turn(row)
            self._decisions[kinds] = self._decide([self._turns[kind] for kind in kinds], self._at(rows))
        return self._decisions[kinds]

    def _decide(self, rows: Sequence[tuple[Row, Round]], times: RoundTimes) -> list[Choice | None]:
        """Take those out of the pass, the best first, of which turns promise more than all get otherwise."""
        order = sorted(range(len(rows)), key=lambda number: rows[number][1].rate, reverse=True)
        best, highest, apart = self._shared(rows, order, 0, times)
        better = sum(turn.rate > TURN_MARGIN * highest for _, turn in rows)
        for count in sorted({better, len(rows)} - {0}):
            shared, rate, turns = self._shared(rows, order, count, times)
            if rate > TURN_MARGIN * highest:
                best, highest, apart = shared, rate, turns
        choices: list[Choice | None] = [None] * len(rows)
        if best:
            for number in order[apart:]:
                choices[number] = rows[number][0].drafting(best.source, best.length)
        return choices

    def _shared(
        self, rows: Sequence[tuple[Row, Round]], order: Sequence[int], turns: int, times: RoundTimes
    ) -> tuple[Round | None, float, int]:
        """Return the best pass if the first ones have turns, the rate of all, and how many have them.

        No pass has a single row.
        """
        turns = len(order) if len(order) - turns < 2 else turns
        parts = [rows[number][1] for number in order[:turns]]
        shared = None
        if together := [rows[number][0] for number in order[turns:]]:
            shared = max(rounds(together, times), key=attrgetter("hoped_rate"))
            parts.append(shared._replace(seconds=shared.hoped))
        return shared, sum(part.tokens for part in parts) / sum(part.seconds for part in parts), turns


def _turn(row: Row) -> Round:
    """Return what to expect of a turn. Drafts longer than any that was timed are hoped to be cheap."""
    times = row.policy.costs.at(row.now.depth)
    ways = rounds([row], times, bold=True)
    return max(
        (way._replace(seconds=way.hoped) if way.length > times.longest(way.source) else way for way in ways),
        key=attrgetter("rate"),
    )
