"""What is known about drafting so far: how often draft tokens are kept, and how long rounds take. Pure.

Both are learnt from the rounds themselves, as they come, so no request waits for a measurement. A *source* of
drafts is a name: a draft model, or lookups with matches of one class. Lengths are in draft tokens.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

DECAY = 0.97  # weight of what was known of a source against one more draft from it
PRIOR_WEIGHT = 4.0  # draft tokens that a guess is worth, and so is what was seen of other texts
NEIGHBOUR_WEIGHT = 2.0  # draft tokens that what is known of the position before is worth
MAX_POSITIONS = 8  # that are told apart


@dataclass(slots=True)
class Share:
    """How many tokens were seen lately, and how many of them were kept. Both fade."""

    kept: float = 0.0
    seen: float = 0.0

    def fade(self, rest: float) -> None:
        """Let what was seen count that much of what it did."""
        self.kept, self.seen = rest * self.kept, rest * self.seen


class AcceptanceEstimate:
    """How likely a draft token is to be kept if all before it in its draft are, by source and position.

    Of a position that was not tried for long, what is known of the one before it is believed in the end.
    """

    def __init__(self, guess: Callable[[str], float]) -> None:
        self._guess = guess
        self._shares: dict[str, list[Share]] = {}

    def _of(self, source: str) -> list[Share]:
        if source not in self._shares:
            first = Share(self._guess(source) * PRIOR_WEIGHT, PRIOR_WEIGHT)
            self._shares[source] = [first, *(Share() for _ in range(MAX_POSITIONS - 1))]
        return self._shares[source]

    def chances(self, source: str, length: int) -> Iterator[float]:
        """Yield for each position how likely its token is to be kept, together with all before it."""
        chance, value = 1.0, self._guess(source)
        weight = 0.0  # nothing comes before the first
        shares = self._of(source)
        for position in range(length):
            if position < MAX_POSITIONS:
                share = shares[position]
                value = (share.kept + weight * value) / (share.seen + weight)
                weight = NEIGHBOUR_WEIGHT
            chance *= value
            yield chance

    def judged(self, source: str, length: int, kept: float) -> None:
        """Learn from a draft of which so many were kept; what comes after the first refused one was not judged.

        Of a draft of one token, `kept` may be how likely it was to be kept.
        """
        shares = self._of(source)
        for share in shares:
            share.fade(DECAY)
        for position in range(min(int(kept) + 1, length)):
            share = shares[min(position, MAX_POSITIONS - 1)]
            share.kept += min(1.0, kept - position)
            share.seen += 1

    def another_text(self) -> None:
        """What was seen of other texts counts less than what will be seen of this one."""
        for shares in self._shares.values():
            for share in shares:
                share.fade(PRIOR_WEIGHT / max(share.seen, PRIOR_WEIGHT))


LEARNING = 0.05  # weight of a new time against what was known, at least
MAX_SURPRISE = 1.5  # times as long as expected that one round counts for at most: the rest was something else
HOPE = 0.0004  # part by which a time is hoped to be shorter now, for each round since it was taken
MAX_HOPE = 0.15  # the same for what is not known
UNKNOWN = 1.0  # seconds of a round before any was timed: all are as good
SMALLEST_DEPTH = 2048  # tokens of context; there is a table for it and for each doubling


@dataclass(slots=True)
class _Cell:
    seconds: float
    last: int  # when it was timed, in rounds of its table
    times: int = 1


class RoundTimes:
    """Seconds of a round by source and draft length, at about one depth of context."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[int, _Cell]] = {}
        self._rounds = 0

    def add(self, source: str, length: int, seconds: float) -> None:
        """Note how long a round took. The first time of its kind there may have been something to compile."""
        self._rounds += 1
        cell = self._cells.setdefault(source, {}).setdefault(length, _Cell(seconds, self._rounds, 0))
        weight = max(LEARNING, 1 / max(1, cell.times), self._hope(cell))
        cell.seconds += weight * (min(seconds, MAX_SURPRISE * cell.seconds) - cell.seconds)
        cell.last, cell.times = self._rounds, cell.times + 1

    def times(self, source: str, length: int) -> int:
        """Return how often a round of this length was timed."""
        cell = self._cells.get(source, {}).get(length)
        return cell.times if cell else 0

    def nearest(self, source: str, length: int) -> int:
        """Return the length nearest to this one that was timed; 0 if none was."""
        return min(self._cells.get(source, {}), key=lambda timed: abs(timed - length), default=0)

    def seconds(self, source: str, length: int) -> float:
        """Return how long a round takes; one that was not timed is taken to lie between its neighbours."""
        cell = self._cells.get(source, {}).get(length)
        return cell.seconds if cell else self._between(source, length)

    def hoped(self, source: str, length: int) -> float:
        """Return how long a round may take at best: the longer ago it was timed, the less is known."""
        if self.times(source, length) < 2:
            return (1 - MAX_HOPE) * self._between(source, length)
        cell = self._cells[source][length]
        return (1 - self._hope(cell)) * cell.seconds

    def _hope(self, cell: _Cell) -> float:
        return min(MAX_HOPE, HOPE * (self._rounds - cell.last))

    def _between(self, source: str, length: int) -> float:
        """Without a shorter neighbour it is the quickest round of all; without a longer one, the shorter one."""
        known = {n: cell.seconds for n, cell in self._cells.get(source, {}).items() if cell.times > 1}
        quickest = min(
            (cell.seconds for cells in self._cells.values() for cell in cells.values()), default=UNKNOWN
        )
        shorter = max((n for n in known if n < length), default=0)
        longer = min((n for n in known if n > length), default=length)
        low = known.get(shorter, quickest)
        return low + (known.get(longer, low) - low) * (length - shorter) / max(1, longer - shorter)


class CostModel:
    """Seconds of rounds, by source, draft length and depth of context."""

    def __init__(self) -> None:
        self._tables: dict[int, RoundTimes] = {}

    def at(self, depth: int) -> RoundTimes:
        """Return the table for a depth in tokens; a new one begins with what the nearest one knows."""
        bucket = (depth // SMALLEST_DEPTH).bit_length()
        if bucket not in self._tables:
            nearest = min(self._tables, key=lambda known: abs(known - bucket), default=None)
            self._tables[bucket] = RoundTimes() if nearest is None else copy.deepcopy(self._tables[nearest])
        return self._tables[bucket]
