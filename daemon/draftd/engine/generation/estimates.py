"""What is known about drafting so far: how often draft tokens are kept, and how long rounds take. Pure.

Both are learnt from the rounds themselves, as they come, so no request waits for a measurement. A *source* of
drafts is a name: a draft model, or lookups with matches of one class. Lengths are in draft tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

# --- how often draft tokens are kept ----------------------------------------------------------------------------

DECAY = 0.97  # weight of what was known against one new draft token
PRIOR_WEIGHT = 4.0  # draft tokens that a guess is worth
MAX_OWN_POSITION = 8  # positions below it have a share each; beyond it, one for each doubling


class Share:
    """How often something happened lately, beginning with a guess."""

    def __init__(self, guess: float) -> None:
        self._hits, self._seen = guess * PRIOR_WEIGHT, PRIOR_WEIGHT

    def add(self, hit: float) -> None:
        """Note one more case: 1 if it happened, 0 if not, or how likely it was."""
        self._hits = DECAY * self._hits + hit
        self._seen = DECAY * self._seen + 1

    def another_text(self) -> None:
        """What was seen of other texts counts no more than a guess does."""
        keep = min(1.0, PRIOR_WEIGHT / self._seen)
        self._hits, self._seen = keep * self._hits, keep * self._seen

    @property
    def value(self) -> float:
        """Between 0 and 1."""
        return self._hits / self._seen


def place_of(position: int) -> int:
    """Return which share a position (from 0) has: 0, 1, ... 7, then one for 8-15, 16-31 and so on."""
    return position if position < MAX_OWN_POSITION else MAX_OWN_POSITION - 4 + position.bit_length()


class AcceptanceEstimate:
    """How likely a draft token is to be kept if all before it in its draft are, by source and position."""

    def __init__(self, guess: Callable[[str], float]) -> None:
        self._guess = guess
        self._shares: dict[str, list[Share]] = {}

    def _share(self, source: str, position: int) -> Share:
        """Of a position that was never tried, what is known of the one before it is the guess."""
        shares = self._shares.setdefault(source, [])
        place = place_of(position)
        while len(shares) <= place:
            shares.append(Share(shares[-1].value if shares else self._guess(source)))
        return shares[place]

    def chances(self, source: str, length: int) -> Iterator[float]:
        """Yield for each position how likely its token is to be kept, together with all before it."""
        chance = 1.0
        for position in range(length):
            chance *= self._share(source, position).value
            yield chance

    def judged(self, source: str, length: int, kept: int) -> None:
        """Learn from a draft of which so many were kept; what comes after the first refused one was not judged."""
        for position in range(min(kept + 1, length)):
            self._share(source, position).add(position < kept)

    def would_have_kept(self, source: str, share: float) -> None:
        """Learn from a token that was generated without a draft: how likely one from this source was to be kept."""
        self._share(source, 0)
        for known in self._shares[source]:
            known.add(share)

    def another_text(self) -> None:
        """What was seen of other texts counts less than what will be seen of this one."""
        for shares in self._shares.values():
            for share in shares:
                share.another_text()


# --- how long rounds take ---------------------------------------------------------------------------------------

LEARNING = 0.05  # weight of a new time against what was known, once there are a few
STALE = 200  # rounds after which half of what was known is given up for a new time
MAX_SURPRISE = 1.5  # times as long as expected that one round counts for at most: the rest was something else
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
        self._cells: dict[tuple[str, int], _Cell] = {}
        self._rounds = 0

    def add(self, source: str, length: int, seconds: float) -> None:
        """Note how long a round took."""
        self._rounds += 1
        cell = self._cells.setdefault((source, length), _Cell(seconds, self._rounds, 0))
        seconds = min(max(seconds, cell.seconds / MAX_SURPRISE), cell.seconds * MAX_SURPRISE)
        cell.times += 1
        age = self._rounds - cell.last
        cell.seconds += (seconds - cell.seconds) * max(LEARNING, 1 / cell.times, min(0.5, age / (2 * STALE)))
        cell.last = self._rounds

    def times(self, source: str, length: int) -> int:
        """Return how often a round of this length was timed."""
        cell = self._cells.get((source, length))
        return cell.times if cell else 0

    def seconds(self, source: str, length: int) -> float:
        """Return how long a round takes.

        One that was not timed is hoped to take as long as the longest shorter one, or else as the quickest of
        all: so it is tried, if that would make it the best, and then it is known. (The cost of rows is a
        staircase on some devices: no line through the others could tell.)
        """
        for shorter in range(length, 0, -1):
            if cell := self._cells.get((source, shorter)):
                return cell.seconds
        alone = self._cells.get((ALONE, 0))
        return (
            alone.seconds if alone else min((cell.seconds for cell in self._cells.values()), default=UNKNOWN)
        )

    def copy(self) -> "RoundTimes":
        """Return what is known here as a guess for another depth."""
        made = RoundTimes()
        made._cells = {key: _Cell(cell.seconds, 0, cell.times) for key, cell in self._cells.items()}
        return made


ALONE = "alone"  # the source of rounds without a draft


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
