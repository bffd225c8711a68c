"""Who of several requests goes next, and how much of a text is read meanwhile. Pure.

Theory of operation. Requests take turns. In a cycle each that writes has one round, and of those that read, a
prompt for instance, one reads a piece: so an answer is held up by one piece at most between two of its rounds,
however many prompts are waiting, and prompts are read side by side. A request that has read its own then writes.

A piece is as long as MAX_HELD_UP allows, by what passes took lately. Where a pass over a single token takes as long
as that already, pieces that short would cost far more than they are worth: there a piece may take twice that time.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from draftd.engine.generation.round_times import table_of

MAX_HELD_UP = 0.1  # seconds that reading a piece of somebody's prompt may hold the others up for
FIRST_PIECE = 16  # tokens, where nothing is known yet of how long they take
NEWEST_WEIGHT = 0.5  # of the newest time against what was known

Request = TypeVar("Request", bound=Hashable)


class Pause(Enum):
    """Where a request may be left for others to have their turns, and what comes next when it is taken up again."""

    READING = "reading"
    ROUND = "round"


@dataclass(slots=True)
class Company:
    """How many requests are at work."""

    size: int = 1

    @property
    def crowded(self) -> bool:
        """Whether somebody else waits for this request's turn to end."""
        return self.size > 1


@dataclass(slots=True)
class Pace:
    """How many tokens of a text one model reads in a pass, so that others are not held up for too long."""

    company: Company = field(default_factory=Company)
    _single: float = 0.0  # seconds of a pass over one token
    _each: float | None = None  # seconds of each further token

    def tokens(self, limit: int) -> int:
        """Return how many are to be read next; `limit` of them where nobody else waits."""
        if not self.company.crowded:
            return limit
        if self._each is None:
            return min(limit, FIRST_PIECE)
        fixed = max(0.0, self._single - self._each)
        return max(1, min(limit, int(max(MAX_HELD_UP - fixed, fixed) / self._each)))

    def took(self, tokens: int, seconds: float) -> None:
        """Learn from a pass over `tokens` tokens.

        A further token takes no longer than a pass over it alone. So a first pass in which a GPU's kernels were
        compiled does not make every prompt be read token by token from then on.
        """
        if tokens == 1:
            self._single = _mean(self._single or seconds, seconds)
            self._each = None if self._each is None else min(self._each, self._single)
        else:
            each = max(seconds - self._single, seconds / (2 * tokens)) / (tokens - 1)
            self._each = _mean(each if self._each is None else self._each, each)


def _mean(known: float, newest: float) -> float:
    return known + NEWEST_WEIGHT * (newest - known)


class Turns(Generic[Request]):
    """The requests at work, and whose turn it is."""

    def __init__(self) -> None:
        self._writing: list[Request] = []
        self._reading: deque[Request] = deque()

    def __len__(self) -> int:
        return len(self._writing) + len(self._reading)

    def __iter__(self) -> Iterator[Request]:
        return iter([*self._writing, *self._reading])

    def join(self, request: Request) -> None:
        """Take in another one, which has its prompt to read."""
        self._reading.append(request)

    def leave(self, request: Request) -> None:
        """Forget one that has ended."""
        (self._writing if request in self._writing else self._reading).remove(request)

    def paused(self, request: Request, pause: Pause) -> None:
        """Note what comes next of one that has had its turn."""
        self.leave(request)
        (self._writing if pause is Pause.ROUND else self._reading).append(request)

    @property
    def writing(self) -> list[Request]:
        """Those that have a round in this cycle."""
        return list(self._writing)

    @property
    def reading(self) -> list[Request]:
        """The one that reads a piece in this cycle, if any reads."""
        return list(self._reading)[:1]


def groups(lengths: Mapping[Request, int]) -> list[list[Request]]:
    """Put those together whose texts are about as long, in tokens: the shorter ones are padded to the longest.

    Who reads together is timed in one table.
    """
    by_size: dict[int, list[Request]] = {}
    for request, length in lengths.items():
        by_size.setdefault(table_of(length), []).append(request)
    return list(by_size.values())
