"""How long rounds take, learnt from the rounds themselves as they come: no request waits for a measurement. Pure.

A round is known by how many sequences share it, by the source of its drafts, and by their length in tokens. What
was not timed lies on the line between its neighbours, and beyond the longest draft each further token is hoped to
cost little: so more are tried, step by step, for as long as they might pay; on some devices they do from some
number on, though those before were dear.
"""

import copy
from bisect import bisect, insort
from collections import defaultdict
from dataclasses import dataclass

from draftd.engine.generation.choices import ALONE, REVIEW
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER

LEARNING = 0.05  # weight of a new time against what was known, at least
MAX_SURPRISE = 1.5  # times as long as expected that one round counts for at most: the rest was something else
HOPE = 0.0004  # part by which a time is thought to be too long by now, for each round since it was taken
MAX_HOPE = 0.2  # the most that comes to
ALONE_HOPE = 0.002  # the same for a token alone, which all else is compared with; and there is no most
FIRST_HOPE = 0.15  # part by which what was never timed is hoped to be shorter
NOISE = 0.1  # part that rounds of one kind differ by anyway
HOPED_SLOPE = 0.25  # of what each of the last tokens has cost: what each further one is hoped to cost
MAX_GUESSED = 2  # rounds that a time of another depth is worth
UNKNOWN = 1.0  # seconds of a round before any was timed: all are as good
SMALLEST_DEPTH = 2048  # tokens of context; there is a table for it and for each doubling


@dataclass(slots=True)
class _Timed:
    seconds: float
    last: int = 0  # when it was timed, in rounds of its table
    times: int = 0


class RoundTimes:
    """Seconds of a round at about one depth of context."""

    def __init__(self) -> None:
        self._timed: defaultdict[tuple[str, int], dict[int, _Timed]] = defaultdict(dict)
        # The lengths with which others are compared.
        self._known: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        self._rounds = 0

    def add(self, source: str, length: int, seconds: float, sequences: int = 1) -> None:
        """Note how long a round took; of one alone, it is that of any source with a draft of no tokens.

        The first time is no measure of a draft: something may have been compiled. The second one takes its place.
        """
        self._rounds += 1
        for each in (LOOKUP_DRAFTER, MODEL_DRAFTER) if source == ALONE else (source,):
            timed = self._timed[each, sequences].setdefault(length, _Timed(seconds))
            hope = self._hope(length, timed)
            newer = hope if length else hope**2 / (hope**2 + NOISE**2)
            weight = max(LEARNING, 1 / max(1, timed.times), newer)
            timed.seconds += weight * (min(seconds, MAX_SURPRISE * timed.seconds) - timed.seconds)
            timed.last, timed.times = self._rounds, timed.times + 1
            known = self._known[each, sequences]
            if length not in known and (timed.times > 1 or source in {ALONE, REVIEW}):
                insort(known, length)

    def copy(self) -> "RoundTimes":
        """Return what is known here as a guess for elsewhere, which gives way to what will be timed there."""
        copied = copy.deepcopy(self)
        for timed in (timed for lengths in copied._timed.values() for timed in lengths.values()):
            timed.times = min(timed.times, MAX_GUESSED)
        return copied

    def times(self, source: str, length: int, sequences: int = 1) -> int:
        """Return how often a round of this length was timed."""
        timed = self._timed[_as_timed(source), sequences].get(length)
        return timed.times if timed else 0

    def longest(self, source: str, sequences: int = 1) -> int:
        """Return the longest draft of which it is known how long it takes; 0 if it is of none."""
        return max(self._known[source, sequences], default=0)

    def seconds(self, source: str, length: int, sequences: int = 1) -> float:
        """Return how long a round takes."""
        key = _as_timed(source), sequences
        timed, known = self._timed[key], self._known[key]
        place = bisect(known, length)
        if place and known[place - 1] == length:
            return timed[length].seconds
        if not known:
            return self._of_others(source, length, sequences)
        low = known[max(0, place - 1)]
        near = known[place] if 0 < place < len(known) else known[max(0, bisect(known, low // 2) - 1)]
        slope = (timed[near].seconds - timed[low].seconds) / (near - low) if near != low else 0.0
        return timed[low].seconds + max(0.0, slope) * max(0, length - low)

    def _of_others(self, source: str, length: int, sequences: int) -> float:
        """Return how long a round of a kind may take of which none was timed, by what others take.

        A lookup takes less than a draft model, and reading a little about as long as a token alone.
        """
        if source != MODEL_DRAFTER and self._known[MODEL_DRAFTER, sequences]:
            return self.seconds(MODEL_DRAFTER, 0 if source == REVIEW else length, sequences)
        counts = [count for kind, count in self._known if self._known[kind, count] and kind != REVIEW]
        if not counts:
            return UNKNOWN
        nearest = min(counts, key=lambda count: abs(count - sequences))
        return self.seconds(LOOKUP_DRAFTER, length, nearest) * min(1.0, sequences / nearest)

    def estimate(self, source: str, length: int, sequences: int = 1) -> tuple[float, float]:
        """Return how long a round takes, and how long at best: the longer ago it was timed, the less is known."""
        seconds = self.seconds(source, length, sequences)
        timed = self._timed[_as_timed(source), sequences].get(length)
        if timed and (timed.times > 1 or source == ALONE):
            hope = self._hope(length, timed)
            return seconds, (1 - hope) * seconds if length else seconds / (1 + hope)
        known = self.longest(source, sequences)
        shorter = self.seconds(source, known, sequences) if known < length else seconds
        return seconds, (1 - FIRST_HOPE) * (shorter + HOPED_SLOPE * max(0.0, seconds - shorter))

    def _hope(self, length: int, timed: _Timed) -> float:
        age = self._rounds - timed.last
        return min(MAX_HOPE, HOPE * age) if length else ALONE_HOPE * age


def _as_timed(source: str) -> str:
    return LOOKUP_DRAFTER if source == ALONE else source


def table_of(depth: int) -> int:
    """Return which table a depth in tokens belongs to: there is one for SMALLEST_DEPTH and for each doubling."""
    return (depth // SMALLEST_DEPTH).bit_length()


class CostModel:
    """Seconds of rounds, by depth of context too."""

    def __init__(self) -> None:
        self._tables: dict[int, RoundTimes] = {}

    def at(self, depth: int) -> RoundTimes:
        """Return the table for a depth in tokens; a new one begins with what the nearest one knows."""
        bucket = table_of(depth)
        if bucket not in self._tables:
            nearest = min(self._tables, key=lambda known: abs(known - bucket), default=None)
            self._tables[bucket] = RoundTimes() if nearest is None else self._tables[nearest].copy()
        return self._tables[bucket]
