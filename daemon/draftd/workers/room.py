"""Room in memory for workers: who has it, who waits for it, and what the budget decides, carried out.

budget.py decides; this module knows the workers that it decides about. A worker asks for room before it loads, and
keeps it until its process is gone. Decisions are made anew whenever something has changed: a worker has come, gone,
become ready, grown or fallen idle, or it is time to decide again, as the last decision said.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from draftd import clock
from draftd.groups import Groups
from draftd.pressure import Pressure
from draftd.workers.budget import Decision, Holder, Strain, Waiter, decide

log = structlog.get_logger("room")

PATIENCE = 30.0  # seconds that a busy worker may go on when another one waits for its room
MAX_DRAIN = 300.0  # seconds that the requests which are open then have to finish


@dataclass(frozen=True, slots=True)
class Standing:
    """How a worker is at this moment, in the words of budget.py. Times are in monotonic seconds.

    `since`: when it got ready; now, if it is not.
    """

    busy: bool
    leaving: bool
    wanted: bool
    pinned: bool
    since: float
    last_used: float


class Tenant(Protocol):
    """A worker, as it is seen from here. No call changes anything before the next turn of the loop."""

    name: str

    @property
    def profiles(self) -> Collection[str]:
        """The names of those that it serves."""

    def standing(self) -> Standing:
        """How it is now."""

    def enter(self) -> None:
        """It has room, and may load."""

    def make_room(self, drain: float) -> None:
        """Sleep; with a `drain`, even if there are requests: open ones have that many seconds to finish."""

    def rest(self) -> None:
        """Sleep unless somebody needs the worker: the machine is short of memory."""

    def refuse(self, reason: str) -> None:
        """It cannot have room, whoever waits for it; `reason` is for people."""


@dataclass(slots=True)
class _Place:
    """One worker's: the bytes that are counted for it, when it came, and whether it has been told to leave."""

    key: str
    size: int
    came: float
    holds: bool = False
    told: bool = False


Standings = list[tuple[Standing, _Place]]


class Room:
    """See the module's docstring. `budget` is in bytes. For the event loop's thread."""

    def __init__(self, budget: int, patience: float = PATIENCE, groups: Groups | None = None) -> None:
        self.budget = budget
        self._patience = patience
        self._groups = groups or Groups()
        self._strain = Strain()
        self._places: dict[Tenant, _Place] = {}
        self._most: dict[Tenant, int] = {}  # bytes that each has been seen to take
        self._asked = 0
        self._timer: clock.Timer | None = None

    def ask(self, tenant: Tenant, size: int | None) -> None:
        """Wait for room, giving up any that the worker had. `size`: bytes that it will take; None if nobody knows.
        Then it is what the worker has taken before, or the whole budget, which it may have to itself, if that is
        less.
        """
        self._wait(tenant, size, time.monotonic())

    def ask_anew(self, tenant: Tenant, size: int | None) -> None:
        """The worker has not begun to load, and is to become another one, of this size. It keeps its place among
        those that wait, but not the room that it may have got: that was for what it was before.
        """
        self._wait(tenant, size, self._places[tenant].came)

    def _wait(self, tenant: Tenant, size: int | None, came: float) -> None:
        self._asked += 1
        self._places[tenant] = _Place(str(self._asked), self._known(tenant, size), came)
        self.look()

    def _known(self, tenant: Tenant, size: int | None) -> int:
        return min(self._most.get(tenant, 0), self.budget) if size is None else size

    def leave(self, tenant: Tenant) -> None:
        """The worker has no process, and does not wait for one."""
        if self._places.pop(tenant, None) is not None:
            self.look()

    def forget(self, tenant: Tenant) -> None:
        """The worker is gone for good."""
        self._most.pop(tenant, None)
        self.leave(tenant)

    def becomes_another(self, tenant: Tenant) -> None:
        """The worker is to serve another model: what it took until now says nothing about that."""
        self._most.pop(tenant, None)

    def stays(self, tenant: Tenant) -> None:
        """The worker was told to sleep, but does not, since a request has come."""
        if tenant in self._places:
            self._places[tenant].told = False
            self.look()

    def has_grown(self, tenant: Tenant, size: int) -> None:
        """The worker takes this many bytes now."""
        if not tenant.standing().leaving:  # else it may be on its way out to become another one
            self._most[tenant] = max(self._most.get(tenant, 0), size)
        place = self._places.get(tenant)
        if place is not None and size > place.size:
            place.size = size
            self.look()

    def fell_idle(self) -> None:
        """A worker has no open request any more."""
        if any(not place.holds for place in self._places.values()):
            self.look()

    def feels(self, pressure: Pressure) -> None:
        """The memory pressure has changed."""
        if pressure is not self._strain.pressure:
            self._strain = replace(self._strain, pressure=pressure)
            self.look()

    @property
    def strained(self) -> str:
        """How short of memory the machine is, for people; "" if it is not."""
        return f"its pressure is {self._strain.pressure.name.lower()}" if self._strain.is_felt else ""

    def refusal(self, tenant: Tenant, size: int | None) -> str:
        """Why a worker of this size will never have room, for people; "" if it may. `ask` says what None means."""
        pinned = [
            (other, place.size)
            for other, place in self._places.items()
            if other is not tenant and place.holds and _stays_pinned(other.standing())
        ]
        known = self._known(tenant, size)
        if apart := [other.name for other, _ in pinned if self._are_apart(tenant, other)]:
            return f"[groups] keeps it apart from '{apart[0]}', which is pinned"
        if known <= self.budget - sum(taken for _, taken in pinned):
            return ""
        others = "".join(f", of which '{other.name}' keeps {_gb(taken)}" for other, taken in pinned)
        return f"it needs {_gb(known)}, and all workers together may take {_gb(self.budget)}{others}"

    def instead_of(self, tenant: Tenant) -> list[str] | None:
        """Who has the room that `tenant` waits for, by name; None if it waits for none."""
        place = self._places.get(tenant)
        if place is None or place.holds:
            return None
        return sorted(other.name for other, its in self._places.items() if its.holds)

    def before(self, tenant: Tenant) -> list[str]:
        """The names of those that wait for room and came before `tenant`, which waits too, in their order."""
        came = self._places[tenant].came
        waiting = [(place.came, other.name) for other, place in self._places.items() if not place.holds]
        return [name for since, name in sorted(waiting) if since < came]

    def look(self) -> None:
        """Decide, and carry it out."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.monotonic()
        standings = [(tenant.standing(), place) for tenant, place in self._places.items()]
        decision = decide(
            self.budget,
            list(_holders(standings)),
            list(self._waiters(standings)),
            now,
            self._patience,
            self._strain,
        )
        self._carry_out(decision)
        if decision.again is not None:
            self._timer = clock.Timer(decision.again - now, self.look)

    def _waiters(self, standings: Standings) -> Iterator[Waiter]:
        for tenant, (standing, place) in zip(self._places, standings, strict=True):
            if not place.holds and not place.told:
                apart = (its.key for other, its in self._places.items() if self._are_apart(tenant, other))
                yield Waiter(place.key, place.size, place.came, standing.wanted, frozenset(apart))

    def _are_apart(self, tenant: Tenant, other: Tenant) -> bool:
        return tenant is not other and self._groups.exclude(tenant.profiles, other.profiles)

    def _carry_out(self, decision: Decision) -> None:
        tenants = {place.key: tenant for tenant, place in self._places.items()}
        for key in decision.load:
            self._places[tenants[key]].holds = True
            tenants[key].enter()
        for key in (*decision.sleep, *decision.decline):
            self._tell(tenants[key], 0.0)
        for key in decision.drain:
            self._tell(tenants[key], MAX_DRAIN)
        for key in decision.relieve:
            self._relieve(tenants[key])
        for key in decision.refuse:
            self._note(tenants[key])
            tenants[key].refuse(self.refusal(tenants[key], self._places[tenants[key]].size))

    def _tell(self, tenant: Tenant, drain: float) -> None:
        self._note(tenant)
        tenant.make_room(drain)

    def _relieve(self, tenant: Tenant) -> None:
        self._strain = replace(self._strain, relieved=time.monotonic())
        place = self._places[tenant]
        place.told = True
        log.info("a worker sleeps, as memory is short", worker=tenant.name, size=_gb(place.size))
        tenant.rest()

    def _note(self, tenant: Tenant) -> None:
        place = self._places[tenant]
        place.told = True
        event = "a worker makes room in memory" if place.holds else "there is no room in memory for a worker"
        log.info(event, worker=tenant.name, size=_gb(place.size), budget=_gb(self.budget))


def _stays_pinned(standing: Standing) -> bool:
    # As in budget.py: one that is on its way out, as for a restart, keeps nobody out for good.
    return standing.pinned and not standing.leaving


def _holders(standings: Standings) -> Iterator[Holder]:
    for standing, place in standings:
        if place.holds:
            yield Holder(
                place.key,
                place.size,
                since=standing.since,
                last_used=standing.last_used,
                busy=standing.busy,
                pinned=standing.pinned,
                leaving=standing.leaving or place.told,
            )


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
