"""Which machine gets a request. Pure.

Rules:

1. Only places that answer and serve the model are considered; `fleet` leaves out the others.
2. For each place it is estimated how long the answer would take there:
       start + wait + (reading + writing) * crowding
   `start` is how long a sleeping model takes to load, `wait` how long it is until a slot is free: the requests
   ahead, times what one takes there, divided by the slots. `reading` is the part of the prompt that is not in its
   prompt cache, divided by how fast it reads; `writing` an answer of the usual length, divided by how fast it
   writes. A machine that works on several requests does each of them more slowly (`crowding`).
3. The estimate is divided by the place's weight, and the shortest wins. So the place with the longest common prefix
   wins, unless its queue takes longer than reading the prompt again elsewhere would: between two machines of the
   same speed that is what rule 2 says.
4. Estimates are rough. Places within a tenth of the shortest count as equal, and of these the one with the longest
   common prefix is taken; then the one that has been given the least for its weight, so that idle machines take
   turns and new conversations spread over their caches.
5. What has not been measured at a place is taken from the median of the others, so that no place is preferred or
   avoided for being unknown; if it is known of none, from constants.
6. A request that one place refuses goes to the best of the others.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

ABOUT_EQUAL = 1.1  # times the shortest estimate
READS, WRITES = 400.0, 30.0  # tokens per second where nothing is known
CROWDING = 0.5  # by how much each further request slows down the others, of a request's own time
HERE = ""  # the name of this machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A machine that could answer a request. `open` are the requests of all clients that are at work or wait there;
    `slots` is how many it works on at once; `warm` how many tokens of this prompt are in its cache; `given` how
    many requests it has been given. `reads` and `writes` are in tokens per second of one request alone, `start` and
    `takes` in seconds; None: not known.
    """

    name: str
    weight: float = 1.0
    open: int = 0
    slots: int = 1
    start: float = 0.0
    warm: float = 0.0
    given: int = 0
    reads: float | None = None
    writes: float | None = None
    takes: float | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """A request, in tokens: its prompt, and an answer of the usual length."""

    prompt: float
    answer: float


@dataclass(frozen=True, slots=True)
class Typical:
    """The figures that a machine of which nothing is known is taken to have."""

    reads: float
    writes: float
    takes: float


def best(places: Sequence[Place], demand: Demand) -> Place:
    """The place for a request; there must be one."""
    usual = typical(places, demand)
    estimates = [(estimate(place, usual, demand), place) for place in places]
    limit = min(seconds for seconds, _ in estimates) * ABOUT_EQUAL
    return min((one for one in estimates if one[0] <= limit), key=_preference)[1]


def _preference(one: tuple[float, Place]) -> tuple[float, float, float, str]:
    seconds, place = one
    return (-place.warm, place.given / place.weight, seconds, place.name)


def typical(places: Sequence[Place], demand: Demand) -> Typical:
    """What stands in for the unknown figures of a place."""
    reads = _median([place.reads for place in places]) or READS
    writes = _median([place.writes for place in places]) or WRITES
    takes = _median([place.takes for place in places]) or demand.prompt / reads + demand.answer / writes
    return Typical(reads, writes, takes)


def _median(known: Sequence[float | None]) -> float | None:
    measured = [value for value in known if value]
    return statistics.median(measured) if measured else None


def estimate(place: Place, usual: Typical, demand: Demand) -> float:
    """The seconds that the answer would take at a place, divided by its weight."""
    reading = max(0.0, demand.prompt - place.warm) / (place.reads or usual.reads)
    writing = demand.answer / (place.writes or usual.writes)
    wait = max(0, place.open + 1 - place.slots) * (place.takes or usual.takes) / place.slots
    return (place.start + wait + (reading + writing) * crowding(place.open, place.slots)) / place.weight


def crowding(open_requests: int, slots: int) -> float:
    """How many times as long a request takes if it joins those that are at work."""
    return 1 + CROWDING * min(open_requests, slots - 1)
