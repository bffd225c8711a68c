"""How several sequences go on together: one draft length for all rows of a pass. Pure.

Theory of operation. Rows of a pass that are padded cost as much as those that are used, so all rows may draft as
many tokens, each from the source that promises more for it. Of all lengths the one is chosen with which all
together are expected to get the most tokens for the time that such a round takes. 0 is one of them: from some
number of rows on a pass has no room for drafts. How long rounds take is learnt for each number of rows, as they
come; how often tokens are kept is what each sequence's own policy knows. A fixed length is the longest here: where
others wait, a draft must pay.

What is uncertain is tried by three rules: a length that was never timed is hoped to take no longer than the next
shorter one, a time is hoped to be shorter the longer ago it was taken, and every PROBE rounds the neighbour of the
best length is taken. After MAX_REST rounds without a draft
the draft model reads what it has not, to see what it would have proposed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from draftd.engine.generation.choices import ALONE, REVIEW, Choice, Situation, account_of
from draftd.engine.generation.estimates import CostModel, RoundTimes
from draftd.engine.generation.policy import FIRST_TIMES, LENGTHS, DraftPolicy
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER

PROBE = 32  # rounds
MAX_REST = 256  # rounds
MARGIN = 1.01  # a draft must promise so much more than going on alone


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence: its own policy, and its situation."""

    policy: DraftPolicy
    now: Situation

    def expected(self, source: str, limit: int) -> list[float]:
        """Return how many tokens a round is expected to yield with drafts of 0 to `limit` tokens."""
        longest = self._longest(source)
        yields = [1.0]
        for chance in self.policy.acceptance.chances(account_of(source, self.now.match), min(limit, longest)):
            yields.append(yields[-1] + chance)
        return yields + [yields[-1]] * (limit + 1 - len(yields))

    def _longest(self, source: str) -> int:
        if source == LOOKUP_DRAFTER:
            return min(self.now.lookup, self.now.left)
        fixed = self.now.model if self.policy.fixed is None else self.policy.fixed
        return min(self.now.model, fixed, self.now.left)

    def drafting(self, source: str, length: int) -> Choice:
        """Return the choice to draft so many tokens, as far as they can be had."""
        limit = min(length, self._longest(source))
        return Choice(source, limit) if limit else Choice(ALONE)


@dataclass(slots=True)
class BatchPolicy:
    """See the module. One for all batches of two models."""

    _costs: dict[int, CostModel] = field(default_factory=dict)  # by the number of rows
    _rounds: int = 0
    _resting: int = 0  # rounds without the draft model

    def choose(self, rows: Sequence[Row]) -> list[Choice]:
        """Return how each row goes on."""
        times = self._times(rows)
        drafting = any(row.now.model for row in rows)
        if self._resting >= MAX_REST and drafting:
            self._resting = 0
            return [Choice(REVIEW) if row.now.model else Choice(ALONE) for row in rows]
        if times.times(ALONE, 0) < FIRST_TIMES:
            return [Choice(ALONE)] * len(rows)
        source, length, rate = self._best(rows, times)
        if rate * times.seconds(ALONE, 0) <= MARGIN * len(rows):
            source, length = ALONE, 0
        self._resting = self._resting + 1 if drafting and source != MODEL_DRAFTER else 0
        return self._choices(rows, source, self._probed(length)) if length else [Choice(ALONE)] * len(rows)

    def took(self, rows: Sequence[Row], choices: Sequence[Choice], seconds: float) -> None:
        """How long a round of these choices took."""
        sources = {choice.source for choice in choices}
        source = next((each for each in (MODEL_DRAFTER, LOOKUP_DRAFTER) if each in sources), ALONE)
        self._times(rows).add(source, max(choice.length for choice in choices), seconds)

    def _times(self, rows: Sequence[Row]) -> RoundTimes:
        costs = self._costs.setdefault(len(rows), CostModel())
        return costs.at(max(row.now.depth for row in rows))

    def _best(self, rows: Sequence[Row], times: RoundTimes) -> tuple[str, int, float]:
        """Return the source, the length and the rate, in tokens per second, of the best round with drafts."""
        best = (ALONE, 0, 0.0)
        by_lookup = [row.expected(LOOKUP_DRAFTER, LENGTHS[-1]) for row in rows]
        longest = max((row._longest(MODEL_DRAFTER) for row in rows), default=0)
        by_model = [row.expected(MODEL_DRAFTER, longest) for row in rows]
        for source, limit in ((MODEL_DRAFTER, longest), (LOOKUP_DRAFTER, LENGTHS[-1])):
            for length in LENGTHS:
                if length > limit:
                    break
                expected = sum(
                    max(lookup[length], model[length] if source == MODEL_DRAFTER else 0.0)
                    for lookup, model in zip(by_lookup, by_model, strict=True)
                )
                rate = expected / _hoped(times, source, length)
                if rate > best[2]:
                    best = (source, length, rate)
        return best

    def _probed(self, length: int) -> int:
        self._rounds += 1
        if self._rounds % PROBE:
            return length
        place = LENGTHS.index(length) + (1 if self._rounds % (2 * PROBE) else -1)
        return LENGTHS[place] if 0 <= place < len(LENGTHS) else length

    def _choices(self, rows: Sequence[Row], source: str, length: int) -> list[Choice]:
        """Let each row draft from what promises more for it."""
        choices = []
        for row in rows:
            lookup, model = (row.expected(each, length)[length] for each in (LOOKUP_DRAFTER, MODEL_DRAFTER))
            by_model = source == MODEL_DRAFTER and model >= lookup
            choices.append(row.drafting(MODEL_DRAFTER if by_model else LOOKUP_DRAFTER, length))
        return choices


def _hoped(times: RoundTimes, source: str, length: int) -> float:
    """Return how long a round may take at best, or the next shorter one that was timed if this one never was."""
    timed = next((each for each in range(length, 0, -1) if times.times(source, each)), length)
    return times.hoped(source, timed) if times.times(source, timed) > 1 else times.seconds(source, timed)
