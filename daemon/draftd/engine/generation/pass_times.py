"""How long passes of a batch take, by their rows, learnt as they come. Pure.

What is not known is hoped for: fewer rows than were ever timed take their part of the time, and more of them cost
little beside what the last ones have cost. So more rows are tried, step by step, for as long as they might pay; on
some devices they do from some number on, though the rows before that were dear.
"""

import copy
from bisect import bisect_left
from dataclasses import dataclass, field

from draftd.engine.generation.estimates import HOPE, LEARNING, MAX_SURPRISE, SMALLEST_DEPTH

MAX_HOPE = 0.15  # part by which a time is hoped to be shorter at most, however long ago it was taken
HOPED_SLOPE = 0.25  # of what each of the last rows has cost: what each further one is hoped to cost


@dataclass(slots=True)
class _Cell:
    seconds: float
    last: int  # when it was timed, in times of its curve
    times: int = 1


class Curve:
    """Seconds by a size, which is 1 or more."""

    def __init__(self) -> None:
        self._cells: dict[int, _Cell] = {}
        self._sizes: list[int] = []
        self._now = 0

    @property
    def largest(self) -> int:
        """The largest size that was timed; 0 if none was."""
        return self._sizes[-1] if self._sizes else 0

    def times(self, size: int) -> int:
        """Return how often a size was timed."""
        cell = self._cells.get(size)
        return cell.times if cell else 0

    def add(self, size: int, seconds: float) -> None:
        """Note how long it took."""
        self._now += 1
        cell = self._cells.get(size)
        if cell is None:
            self._cells[size] = _Cell(seconds, self._now)
            self._sizes = sorted(self._cells)
            return
        if cell.times == 1:  # the first time there may have been something to compile
            cell.seconds = min(seconds, cell.seconds)
        else:
            weight = max(LEARNING, 1 / cell.times, self._hope(cell))
            cell.seconds += weight * (min(seconds, MAX_SURPRISE * cell.seconds) - cell.seconds)
        cell.last, cell.times = self._now, cell.times + 1

    def hoped(self, size: int) -> float:
        """Return how long a size may take at best. Something must have been timed."""
        cell = self._cells.get(size)
        if cell is None:
            return self._guess(size)
        if cell.times == 1 and len(self._cells) > 1:
            return (min(self._guess(size), cell.seconds) + cell.seconds) / 2
        return (1 - self._hope(cell)) * cell.seconds

    def _hope(self, cell: _Cell) -> float:
        return min(MAX_HOPE, HOPE * (self._now - cell.last))

    def _guess(self, size: int) -> float:
        """Return how long a size may take, by what the others take."""
        sizes = self._sizes
        place = bisect_left(sizes, size)
        larger = sizes[place + (place < len(sizes) and sizes[place] == size) :][:1]
        if not place:
            return self._cells[larger[0]].seconds * size / larger[0]
        low = sizes[place - 1]
        seconds = self._cells[low].seconds
        if larger:
            slope = (self._cells[larger[0]].seconds - seconds) / (larger[0] - low)
        else:
            smaller = sizes[max(0, bisect_left(sizes, low // 2 + 1) - 1)]
            slope = HOPED_SLOPE * (seconds - self._cells[smaller].seconds) / max(1, low - smaller)
        return seconds + max(0.0, slope) * (size - low)


@dataclass(slots=True)
class PassTimes:
    """Seconds of passes of one model: by their rows, and of rounds with a draft model by sequences and length."""

    passes: Curve = field(default_factory=Curve)
    drafted: dict[int, Curve] = field(default_factory=dict)  # by sequences; by the draft length and 1 more

    def knows(self, sequences: int, by_model: bool, length: int) -> bool:
        """Whether a round of such drafts was timed more than once: the first time is no measure."""
        if by_model:
            return self.drafts(sequences).times(length + 1) > 1
        return not sequences or self.passes.times(sequences * (length + 1)) > 1

    def drafts(self, sequences: int) -> Curve:
        """Return the curve of rounds with a draft model; without a draft they are passes like others."""
        curve = self.drafted.setdefault(sequences, Curve())
        if self.passes.times(sequences) and not curve.times(1):
            curve.add(1, self.passes.hoped(sequences))
        return curve


class PassTimesByDepth:
    """For each depth of context, in tokens, and each doubling of it."""

    def __init__(self) -> None:
        self._tables: dict[int, PassTimes] = {}

    def at(self, depth: int) -> PassTimes:
        """Return what is known at a depth; a new one begins with what the nearest one knows."""
        bucket = (depth // SMALLEST_DEPTH).bit_length()
        if bucket not in self._tables:
            nearest = min(self._tables, key=lambda known: abs(known - bucket), default=None)
            self._tables[bucket] = PassTimes() if nearest is None else copy.deepcopy(self._tables[nearest])
        return self._tables[bucket]
