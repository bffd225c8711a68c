"""What is known about drafting so far: how often draft tokens are kept, and how long rounds take. Pure.

Both are learnt from the rounds themselves, as they come, so no request waits for a measurement. A *source* of
drafts is a name: a draft model, or lookups with matches of one class. Lengths are in draft tokens.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from draftd.engine.generation.choices import ALONE, REVIEW

DECAY = 0.98  # weight of what was known of a source against one more draft from it
PRIOR_WEIGHT = 8.0  # draft tokens that a guess is worth, and so is what was seen of other texts
NEIGHBOUR_WEIGHT = 1.0  # draft tokens that what is known of the position before is worth
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
        """Learn how many tokens of a draft were kept; what comes after the first refused one was not judged.

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
MAX_HOPE = 0.2  # the most that comes to
FIRST_HOPE = 0.15  # the same for what was never timed
MAX_GUESSED = 2  # rounds that a time of another depth is worth
UNKNOWN = 1.0  # seconds of a round before any was timed: all are as good
MAX_LENGTH = 64  # draft tokens
SMALLEST_DEPTH = 2048  # tokens of context; there is a table for it and for each doubling


@dataclass(slots=True)
class _Timed:
    seconds: float
    last: int = 0  # when it was timed, in rounds of its table
    times: int = 0


class RoundTimes:
    """Seconds of a round by source and draft length, at about one depth of context.

    A round takes no less than one with a shorter draft, so what was timed is fitted by times that rise with the
    length (isotonic regression). What was not timed lies in the middle of what its neighbours allow.
    """

    def __init__(self) -> None:
        self._timed: defaultdict[str, dict[int, _Timed]] = defaultdict(dict)
        self._bounds: dict[str, list[tuple[float, float]]] = {}  # by length; 0 where none was timed
        self._rounds = 0

    def add(self, source: str, length: int, seconds: float) -> None:
        """Note how long a round took. The first time of a draft is no measure: something may have been compiled."""
        self._rounds += 1
        timed = self._timed[source].setdefault(length, _Timed(seconds, times=int(source == REVIEW)))
        weight = max(LEARNING, 1 / max(1, timed.times))
        timed.seconds += weight * (min(seconds, MAX_SURPRISE * timed.seconds) - timed.seconds)
        timed.last, timed.times = self._rounds, timed.times + 1
        self._bounds.pop(source, None)

    def copy(self) -> "RoundTimes":
        """Return what is known here as a guess for elsewhere, which gives way to what will be timed there."""
        copied = copy.deepcopy(self)
        for timed in (timed for lengths in copied._timed.values() for timed in lengths.values()):
            timed.times = min(timed.times, MAX_GUESSED)
        return copied

    def times(self, source: str, length: int) -> int:
        """Return how often a round of this length was timed."""
        timed = self._timed[source].get(length)
        return timed.times if timed else 0

    def longest(self, source: str) -> int:
        """Return the longest draft that was timed; 0 if none was."""
        return max(self._timed[source], default=0)

    def seconds(self, source: str, length: int) -> float:
        """Return how long a round takes."""
        if source not in self._bounds:
            known = _rising({n: timed for n, timed in self._timed[source].items() if timed.times > 1})
            lower = accumulate((known.get(n, 0.0) for n in range(MAX_LENGTH + 1)), max)
            upper = accumulate((known.get(n, math.inf) for n in range(MAX_LENGTH, -1, -1)), min)
            self._bounds[source] = list(zip(lower, reversed(list(upper)), strict=True))
        low, high = self._bounds[source][length]
        low = low or (self._timed[ALONE][0].seconds if self._timed[ALONE] else UNKNOWN)
        return low if math.isinf(high) else (low + high) / 2

    def hoped(self, source: str, length: int) -> float:
        """Return how long a round may take at best: the longer ago it was timed, the less is known."""
        timed = self._timed[source].get(length)
        hope = FIRST_HOPE
        if timed and timed.times > 1:
            hope = min(MAX_HOPE, HOPE * (self._rounds - timed.last))
        return (1 - hope) * self.seconds(source, length)


def _rising(known: dict[int, _Timed]) -> dict[int, float]:
    """Return times that rise with the length: where they do not, neighbours get their weighed mean."""
    blocks: list[tuple[float, float, list[int]]] = []
    for length in sorted(known):
        seconds, weight, lengths = known[length].seconds, min(known[length].times, 1 / LEARNING), [length]
        while blocks and blocks[-1][0] > seconds:
            before, more, others = blocks.pop()
            seconds = (before * more + seconds * weight) / (more + weight)
            weight, lengths = more + weight, others + lengths
        blocks.append((seconds, weight, lengths))
    return {length: seconds for seconds, _, lengths in blocks for length in lengths}


class CostModel:
    """Seconds of rounds, by source, draft length and depth of context."""

    def __init__(self) -> None:
        self._tables: dict[int, RoundTimes] = {}

    def at(self, depth: int) -> RoundTimes:
        """Return the table for a depth in tokens; a new one begins with what the nearest one knows."""
        bucket = (depth // SMALLEST_DEPTH).bit_length()
        if bucket not in self._tables:
            nearest = min(self._tables, key=lambda known: abs(known - bucket), default=None)
            self._tables[bucket] = RoundTimes() if nearest is None else self._tables[nearest].copy()
        return self._tables[bucket]
