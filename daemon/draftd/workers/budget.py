"""Who may be in memory: which workers load, which sleep to make room, and which wait. Pure.

Rules that every decision keeps:

1.  What is in memory, what is about to be, and what is on its way out are together never more than the budget.
2.  Waiting workers are served in the order in which they came. A later one may load before an earlier one only into
    memory that the earlier one will not need.
3.  Room is made by as few workers as it takes, the least recently used first, and only if it lets another one load.
    Idle ones sleep at once. A busy one may first serve its own queue: only when `patience` seconds have passed
    since the other one came, and since it got ready itself, does it stop taking requests, to end with those that it
    has. So two models that are asked for in turn do not drive each other out with each request.
4.  A pinned worker never makes room, and one that is alone in memory is left alone, however much it has grown.
5.  Only a worker that is wanted makes others leave: one that would start only because the daemon does loads into
    free memory, or sleeps until its first request.
6.  A worker that cannot fit, whoever leaves, is told so at once.
7.  Workers that must be `apart` are never in memory at the same time: the other one leaves, as if its memory were
    needed, and one that stays for good keeps them out for good (rules 3, 4, 6).
8.  While the machine is short of memory no worker loads, and idle ones sleep even if no other needs their room: the
    least recently used first, each after QUIET seconds without a request and RELIEF seconds after the last one, in
    which the shortage may end; all of them at once if it is critical. One that is alone in memory sleeps only then:
    a model that is large for its machine would have to be loaded again for every other request. A wanted worker
    that has waited for MAX_STRAIN seconds loads all the same, unless it is critical: some machines
    are never at ease.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from draftd.pressure import Pressure

QUIET, RELIEF, MAX_STRAIN = 10.0, 5.0, 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Holder:
    """A worker that has memory. Sizes are in bytes, times in monotonic seconds.

    `since`: when it got ready. `busy`: it loads, or requests are open or wait. `leaving`: it has been told to end.
    """

    name: str
    size: int
    since: float
    last_used: float
    busy: bool = False
    pinned: bool = False
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Waiter:
    """A worker that would load. `since`: when it came. `wanted`: requests wait for it, or a person asked for it.
    `apart`: the names of those that must not be in memory together with it.
    """

    name: str
    size: int
    since: float
    wanted: bool = True
    apart: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Strain:
    """How short of memory the machine is, and when a worker last went to sleep because of it."""

    pressure: Pressure = Pressure.NORMAL
    relieved: float = float("-inf")

    @property
    def is_felt(self) -> bool:
        """Whether anything is done about it."""
        return self.pressure > Pressure.NORMAL


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with which workers, by name. `drain`: they take no new requests, and end. `relieve`: they sleep
    because the machine is short of memory, not to make room. `decline`: they do not load now. `refuse`: they cannot
    fit. `again`: when to decide again if nothing happens before; None if time alone changes nothing.
    """

    load: tuple[str, ...] = ()
    sleep: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    relieve: tuple[str, ...] = ()
    decline: tuple[str, ...] = ()
    refuse: tuple[str, ...] = ()
    again: float | None = None


def decide(
    budget: int,
    holders: Iterable[Holder],
    waiters: Iterable[Waiter],
    now: float,
    patience: float,
    strain: Strain | None = None,
) -> Decision:
    """Decide for these workers; a name is a holder or a waiter, not both. `patience` is in seconds (rule 3)."""
    plan = _Plan(budget, list(holders), now, patience, strain or Strain())
    plan.shrink()
    plan.relieve()
    for waiter in sorted(waiters, key=lambda one: one.since):
        plan.take(waiter)
    return plan.decision()


class _Plan:
    """A decision as it is made, waiter by waiter.

    `used` is what is in memory now, and what has been told to load. `later` is what will be there once all that
    leave have left, and all waiters before this one have loaded. `there` names who is in memory or will be at once,
    `ahead` has the sizes of those who come first.
    """

    def __init__(
        self, budget: int, holders: Sequence[Holder], now: float, patience: float, strain: Strain
    ) -> None:
        self._budget, self._now, self._patience, self._strain = budget, now, patience, strain
        pinned = [one for one in holders if one.pinned and not one.leaving]
        self._pinned = {one.name: one.size for one in pinned}
        self._used = sum(one.size for one in holders)
        self._later = sum(one.size for one in holders if not one.leaving)
        staying = [one for one in holders if not one.pinned and not one.leaving]
        # Idle ones first: False sorts before True.
        self._movable = sorted(staying, key=lambda one: (one.busy, one.last_used, one.name))
        self._there = {one.name for one in holders}
        self._ahead: dict[str, int] = {}
        self._alone = len(holders) == 1
        self._load: list[str] = []
        self._sleep: list[str] = []
        self._drain: list[str] = []
        self._relieve: list[str] = []
        self._decline: list[str] = []
        self._refuse: list[str] = []
        self._again: list[float] = []

    def decision(self) -> Decision:
        """What has been decided so far."""
        return Decision(
            load=tuple(self._load),
            sleep=tuple(self._sleep),
            drain=tuple(self._drain),
            relieve=tuple(self._relieve),
            decline=tuple(self._decline),
            refuse=tuple(self._refuse),
            again=min(self._again, default=None),
        )

    def shrink(self) -> None:
        """Let idle workers sleep if those in memory have grown beyond the budget."""
        if self._later > self._budget and not self._alone:
            idle = [one for one in self._movable if not one.busy]
            self._move(_fewest(idle, self._later - self._budget), self._now)

    def relieve(self) -> None:
        """Let idle ones sleep if the machine is short of memory."""
        idle = [one for one in self._movable if not one.busy]
        if not self._strain.is_felt or not idle:
            return
        if self._strain.pressure is Pressure.CRITICAL:
            leaving = idle
        elif self._alone:
            leaving = []
        else:
            due = max(self._strain.relieved + RELIEF, idle[0].last_used + QUIET)
            leaving = idle[:1] if due <= self._now else []
            self._again.append(due if due > self._now else self._now + RELIEF)
        for one in leaving:
            self._forgo(one)
            self._relieve.append(one.name)

    def take(self, waiter: Waiter) -> None:
        """Decide for the next in order."""
        if waiter.size > self._budget - sum(self._pinned.values()) or waiter.apart & self._pinned.keys():
            self._refuse.append(waiter.name)
        elif not waiter.wanted:
            if self._may_load(waiter) and not self._strain.is_felt:
                self._admit(waiter)
            else:
                self._decline.append(waiter.name)
        elif self._is_held_back(waiter):
            self._wait(waiter)
        else:
            if not waiter.apart & self._ahead.keys():
                self._make_room(waiter)
            if self._may_load(waiter):
                self._admit(waiter)
            else:
                self._wait(waiter)

    def _is_held_back(self, waiter: Waiter) -> bool:
        """Whether memory is too short for this one to load now."""
        due = waiter.since + MAX_STRAIN
        if self._strain.pressure is Pressure.WARNING and due > self._now:
            self._again.append(due)
            return True
        return self._strain.pressure is Pressure.CRITICAL

    def _make_room(self, waiter: Waiter) -> None:
        """Make those leave that this one must be apart from, and as few others as it takes, if that is enough."""
        apart = [one for one in self._movable if one.name in waiter.apart]
        others = [one for one in self._movable if one.name not in waiter.apart]
        missing = self._later + waiter.size - self._budget - sum(one.size for one in apart)
        if missing <= sum(one.size for one in others) and (leaving := [*apart, *_fewest(others, missing)]):
            self._move(leaving, waiter.since)

    def _may_load(self, waiter: Waiter) -> bool:
        fits = max(self._used, self._later) + waiter.size <= self._budget
        return fits and not waiter.apart & (self._there | self._ahead.keys())

    def _admit(self, waiter: Waiter) -> None:
        self._load.append(waiter.name)
        self._used += waiter.size
        self._later += waiter.size
        self._there.add(waiter.name)
        self._ahead[waiter.name] = waiter.size

    def _wait(self, waiter: Waiter) -> None:
        """Keep its memory from later waiters, less what those that it must be apart from will give back by then."""
        gone = sum(size for name, size in self._ahead.items() if name in waiter.apart)
        self._later += max(0, waiter.size - gone)
        self._ahead[waiter.name] = waiter.size

    def _move(self, leaving: Sequence[Holder], asked: float) -> None:
        """Count on these to leave for a waiter that came at `asked`, and tell them if it is time for all."""
        due = max([asked, *(max(asked, one.since) + self._patience for one in leaving if one.busy)])
        for one in leaving:
            self._forgo(one)
            if due <= self._now:
                (self._drain if one.busy else self._sleep).append(one.name)
        if due > self._now:
            self._again.append(due)

    def _forgo(self, one: Holder) -> None:
        self._movable.remove(one)
        self._later -= one.size


def _fewest(movable: Sequence[Holder], missing: int) -> list[Holder]:
    """The first of these that make up for what is missing, without those that are not needed beside the others."""
    chosen: list[Holder] = []
    for one in movable:
        if missing <= 0:
            break
        chosen.append(one)
        missing -= one.size
    for one in list(reversed(chosen)):
        if missing + one.size <= 0:
            chosen.remove(one)
            missing += one.size
    return chosen
