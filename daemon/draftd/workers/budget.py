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
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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
    """A worker that would load. `since`: when it came. `wanted`: requests wait for it, or a person asked for it."""

    name: str
    size: int
    since: float
    wanted: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with which workers, by name. `drain`: they take no new requests, and end. `decline`: they do not
    load now. `refuse`: they cannot fit. `again`: when to decide again if nothing happens before; None if time alone
    changes nothing.
    """

    load: tuple[str, ...] = ()
    sleep: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    decline: tuple[str, ...] = ()
    refuse: tuple[str, ...] = ()
    again: float | None = None


def decide(
    budget: int, holders: Iterable[Holder], waiters: Iterable[Waiter], now: float, patience: float
) -> Decision:
    """Decide for these workers; a name is a holder or a waiter, not both. `patience` is in seconds (rule 3)."""
    plan = _Plan(budget, list(holders), now, patience)
    plan.shrink()
    for waiter in sorted(waiters, key=lambda one: one.since):
        plan.take(waiter)
    return plan.decision()


class _Plan:
    """A decision as it is made, waiter by waiter.

    `used` is what is in memory now, and what has been told to load. `later` is what will be there once all that
    leave have left, and all waiters before this one have loaded.
    """

    def __init__(self, budget: int, holders: Sequence[Holder], now: float, patience: float) -> None:
        self._budget, self._now, self._patience = budget, now, patience
        self._pinned = sum(one.size for one in holders if one.pinned and not one.leaving)
        self._used = sum(one.size for one in holders)
        self._later = sum(one.size for one in holders if not one.leaving)
        staying = [one for one in holders if not one.pinned and not one.leaving]
        # Idle ones first: False sorts before True.
        self._movable = sorted(staying, key=lambda one: (one.busy, one.last_used, one.name))
        self._alone = len(holders) == 1
        self._load: list[str] = []
        self._sleep: list[str] = []
        self._drain: list[str] = []
        self._decline: list[str] = []
        self._refuse: list[str] = []
        self._again: list[float] = []

    def decision(self) -> Decision:
        """What has been decided so far."""
        return Decision(
            load=tuple(self._load),
            sleep=tuple(self._sleep),
            drain=tuple(self._drain),
            decline=tuple(self._decline),
            refuse=tuple(self._refuse),
            again=min(self._again, default=None),
        )

    def shrink(self) -> None:
        """Let idle workers sleep if those in memory have grown beyond the budget."""
        if self._later > self._budget and not self._alone:
            idle = [one for one in self._movable if not one.busy]
            self._move(_fewest(idle, self._later - self._budget), self._now)

    def take(self, waiter: Waiter) -> None:
        """Decide for the next in order."""
        if waiter.size > self._budget - self._pinned:
            self._refuse.append(waiter.name)
            return
        if not waiter.wanted:
            if max(self._used, self._later) + waiter.size <= self._budget:
                self._admit(waiter)
            else:
                self._decline.append(waiter.name)
            return
        missing = self._later + waiter.size - self._budget
        if 0 < missing <= sum(one.size for one in self._movable):
            self._move(_fewest(self._movable, missing), waiter.since)
        if max(self._used, self._later) + waiter.size <= self._budget:
            self._admit(waiter)
        else:
            self._later += waiter.size

    def _admit(self, waiter: Waiter) -> None:
        self._load.append(waiter.name)
        self._used += waiter.size
        self._later += waiter.size

    def _move(self, leaving: Sequence[Holder], asked: float) -> None:
        """Count on these to leave for a waiter that came at `asked`, and tell them if it is time for all."""
        due = max([asked, *(max(asked, one.since) + self._patience for one in leaving if one.busy)])
        for one in leaving:
            self._movable.remove(one)
            self._later -= one.size
            if due <= self._now:
                (self._drain if one.busy else self._sleep).append(one.name)
        if due > self._now:
            self._again.append(due)


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
