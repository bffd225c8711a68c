"""Which workers may be in memory: each rule by an example, all rules by random histories of a simulated machine."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.pressure import Pressure
from draftd.workers.budget import MAX_STRAIN, QUIET, RELIEF, Decision, Holder, Strain, Waiter, decide

NOW, PATIENCE = 1000.0, 30.0
A = Holder("a", 4, since=900.0, last_used=950.0)
B = Holder("b", 4, since=900.0, last_used=940.0)
C = Waiter("c", 4, since=990.0)


def decided(
    *parties: Holder | Waiter, budget: int = 10, now: float = NOW, strain: Strain | None = None
) -> Decision:
    holders = [one for one in parties if isinstance(one, Holder)]
    waiters = [one for one in parties if isinstance(one, Waiter)]
    return decide(budget, holders, waiters, now, PATIENCE, strain)


def test_what_fits_loads() -> None:
    assert decided(C) == Decision(load=("c",))
    assert decided(A, replace(C, size=6)) == Decision(load=("c",))
    assert decided(A, replace(C, size=3), replace(C, name="d", size=3, since=991.0)) == Decision(
        load=("c", "d")
    )


def test_the_least_recently_used_idle_one_makes_room_and_the_other_waits_until_it_is_gone() -> None:
    assert decided(A, B, C) == Decision(sleep=("b",))
    assert decided(A, replace(B, leaving=True), C) == Decision()
    assert decided(A, C) == Decision(load=("c",))


def test_no_more_sleep_than_it_takes() -> None:
    small = Holder("small", 1, since=900.0, last_used=1.0)
    assert decided(A, B, small, C) == Decision(sleep=("b",))
    assert decided(A, B, small, replace(C, size=2)) == Decision(sleep=("small",))
    assert decided(A, B, small, replace(C, size=10)) == Decision(sleep=("small", "b", "a"))


def test_a_pinned_one_stays() -> None:
    assert decided(A, replace(B, pinned=True), C) == Decision(sleep=("a",))
    assert decided(A, replace(B, pinned=True), replace(C, size=7)) == Decision(refuse=("c",))


def test_a_busy_one_serves_its_queue_for_a_while() -> None:
    busy = (replace(A, busy=True), replace(B, busy=True, last_used=999.0))
    assert decided(*busy, C) == Decision(again=1020.0)
    assert decided(*busy, C, now=1020.0) == Decision(drain=("a",))
    fresh = replace(A, busy=True, since=995.0)
    assert decided(fresh, busy[1], C, now=1020.0) == Decision(again=1025.0)
    idle = Holder("idle", 2, since=900.0, last_used=1.0)
    larger = replace(C, size=6)
    assert decided(busy[0], idle, larger, budget=8) == Decision(again=1020.0), "its sleep would not help yet"
    assert decided(busy[0], idle, larger, budget=8, now=1020.0) == Decision(drain=("a",))


def test_a_later_one_takes_only_what_an_earlier_one_will_not_need() -> None:
    busy = replace(A, size=8, busy=True)
    first = replace(C, size=6)
    assert decided(busy, first, Waiter("d", 2, 995.0)) == Decision(load=("d",), again=1020.0)
    assert decided(busy, replace(first, size=9), Waiter("d", 2, 995.0)) == Decision(again=1020.0)


def test_nobody_leaves_for_one_who_has_to_wait_all_the_same() -> None:
    idle = Holder("idle", 2, since=900.0, last_used=1.0)
    first, later = replace(C, size=6), Waiter("d", 9, 995.0)
    assert decided(replace(A, size=8, busy=True), idle, first, later) == Decision(again=1020.0)


def test_who_is_not_wanted_makes_nobody_leave() -> None:
    unwanted = replace(C, wanted=False)
    assert decided(A, B, unwanted) == Decision(decline=("c",))
    assert decided(A, unwanted) == Decision(load=("c",))
    assert decided(A, replace(B, leaving=True), unwanted) == Decision(decline=("c",))


def test_what_can_never_fit_is_refused_and_keeps_nobody_waiting() -> None:
    assert decided(A, replace(C, size=11), Waiter("d", 6, 995.0)) == Decision(load=("d",), refuse=("c",))


def test_idle_ones_that_have_grown_too_much_sleep_but_never_the_only_one() -> None:
    assert decided(replace(A, size=7), B) == Decision(sleep=("b",))
    assert decided(replace(A, size=17)) == Decision()
    assert decided(replace(A, size=7, busy=True), replace(B, busy=True)) == Decision()


# --- apart ------------------------------------------------------------------------------------------------------


def test_one_that_must_be_apart_leaves_although_there_is_memory() -> None:
    loner = replace(C, size=1, apart=frozenset("b"))
    assert decided(A, B, loner) == Decision(sleep=("b",))
    assert decided(A, replace(B, leaving=True), loner) == Decision(), "not before it has left"
    assert decided(A, loner) == Decision(load=("c",))
    assert decided(A, replace(B, busy=True), loner) == Decision(again=1020.0)
    assert decided(A, replace(B, busy=True), loner, now=1020.0) == Decision(drain=("b",))
    assert decided(A, B, replace(loner, size=5)) == Decision(sleep=("b",)), "its memory is enough"
    assert decided(A, B, replace(loner, size=7)) == Decision(sleep=("b", "a"))


def test_one_that_a_pinned_one_must_be_apart_from_is_refused() -> None:
    assert decided(replace(B, pinned=True), replace(C, apart=frozenset("b"))) == Decision(refuse=("c",))


def test_of_two_that_must_be_apart_the_first_to_come_loads_and_the_later_one_keeps_nobody_out() -> None:
    first, later = replace(C, apart=frozenset("d")), Waiter("d", 5, 991.0, apart=frozenset("c"))
    third = Waiter("e", 5, 992.0)
    assert decided(first, later, third) == Decision(load=("c", "e"))
    assert decided(first, replace(later, wanted=False)) == Decision(load=("c",), decline=("d",))
    assert decided(A, replace(B, size=6, busy=True), first, later) == Decision(sleep=("a",)), (
        "for the first only"
    )


# --- a machine that is short of memory ------------------------------------------------------------------------

WARNING, CRITICAL = Strain(Pressure.WARNING), Strain(Pressure.CRITICAL)


@pytest.mark.fault(160)
def test_under_pressure_idle_ones_sleep_one_after_the_other() -> None:
    assert decided(A, B, strain=WARNING) == Decision(relieve=("b",), again=NOW + RELIEF)
    assert decided(A, strain=WARNING) == Decision()  # it would be loaded again for the next request
    assert decided(A, strain=CRITICAL).relieve == ("a",)
    assert decided(A, B, strain=replace(WARNING, relieved=NOW - 1)) == Decision(again=NOW - 1 + RELIEF)
    fresh = replace(A, last_used=NOW - 2)
    assert decided(fresh, replace(B, busy=True), strain=WARNING) == Decision(again=NOW - 2 + QUIET)
    assert decided(A, replace(B, pinned=True), strain=WARNING) == Decision(relieve=("a",), again=NOW + RELIEF)
    assert decided(A, B, strain=Strain()) == Decision()


@pytest.mark.fault(160)
def test_all_idle_ones_sleep_at_once_if_it_is_critical() -> None:
    fresh = replace(A, last_used=NOW)
    assert decided(fresh, B, replace(A, name="c", size=2, busy=True), strain=CRITICAL) == Decision(
        relieve=("b", "a")
    )


@pytest.mark.fault(160)
def test_new_loads_wait_for_it_to_end_but_not_for_ever() -> None:
    due = C.since + MAX_STRAIN
    assert decided(C, strain=WARNING) == Decision(again=due)
    assert decided(C, strain=WARNING, now=due) == Decision(load=("c",))
    assert decided(C, strain=CRITICAL, now=due) == Decision()
    assert decided(replace(C, wanted=False), strain=WARNING) == Decision(decline=("c",))
    assert decided(replace(C, size=11), strain=CRITICAL) == Decision(refuse=("c",))


# --- any history ----------------------------------------------------------------------------------------------

BUDGET = 10
LOAD, LEAVE, MAX_REQUEST = 5.0, 1.0, 20.0  # seconds


class Is(Enum):
    """Where a simulated worker is."""

    OUT = auto()
    WAITING = auto()
    LOADING = auto()
    READY = auto()
    DRAINING = auto()
    LEAVING = auto()


@dataclass(eq=False)
class Model:
    """A worker, and its requests, each as the time that it takes."""

    name: str
    size: int
    pinned: bool
    state: Is = Is.OUT
    since: float = 0.0
    last_used: float = 0.0
    open: int = 0
    queue: list[tuple[float, float]] = field(default_factory=list)  # (came, takes)
    apart: frozenset[str] = frozenset()


class Machine:
    """Works through requests, and records whether the budget held, and how long each request waited."""

    def __init__(self, models: list[Model]) -> None:
        self.models = {model.name: model for model in models}
        self.now = 0.0
        self.waits: list[float] = []
        self.refused: set[str] = set()
        self.loads = 0
        self.strain = Strain()
        self.read = 0  # of all that was loaded, in the unit of the sizes
        self._count = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    budget = BUDGET

    def load_seconds(self, model: Model) -> float:
        return LOAD

    def choose(self, holders: list[Holder], waiters: list[Waiter]) -> Decision:
        decision = decide(self.budget, holders, waiters, self.now, PATIENCE, self.strain)
        check(decision, holders, waiters)
        return decision

    def feel(self, pressure: Pressure) -> None:
        self.strain = replace(self.strain, pressure=pressure)

    def at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._count), happen))

    def run(self) -> None:
        while self._due:
            self.now, _, happen = heapq.heappop(self._due)
            happen()
            self._decide()

    def ask(self, name: str, takes: float) -> None:
        model = self.models[name]
        model.queue.append((self.now, takes))
        if model.state is Is.OUT:
            model.state, model.since = Is.WAITING, self.now
        self._serve(model)

    def _serve(self, model: Model) -> None:
        while model.state is Is.READY and model.queue:
            came, takes = model.queue.pop(0)
            self.waits.append(self.now - came)
            model.open += 1
            self.at(self.now + takes, lambda: self._served(model))

    def _served(self, model: Model) -> None:
        model.open -= 1
        model.last_used = self.now
        if model.state is Is.DRAINING and not model.open:
            self._leave(model)

    def _leave(self, model: Model) -> None:
        model.state = Is.LEAVING
        self.at(self.now + LEAVE, lambda: self._gone(model))

    def _gone(self, model: Model) -> None:
        model.state = Is.WAITING if model.queue else Is.OUT
        model.since = self.now

    def _ready(self, model: Model) -> None:
        model.state, model.since, model.last_used = Is.READY, self.now, self.now
        self._serve(model)

    def _parties(self) -> tuple[list[Holder], list[Waiter]]:
        holders, waiters = [], []
        for model in self.models.values():
            if model.state is Is.WAITING:
                waiters.append(Waiter(model.name, model.size, model.since, apart=model.apart))
            elif model.state is not Is.OUT:
                loading = model.state is Is.LOADING
                leaving = model.state in {Is.DRAINING, Is.LEAVING}
                since = self.now if loading else model.since
                busy = loading or model.open > 0
                holders.append(
                    Holder(model.name, model.size, since, model.last_used, busy, model.pinned, leaving)
                )
        return holders, waiters

    def _decide(self) -> None:
        holders, waiters = self._parties()
        decision = self.choose(holders, waiters)
        for name in decision.load:
            model = self.models[name]
            model.state = Is.LOADING
            self.loads += 1
            self.read += model.size
            self.at(self.now + self.load_seconds(model), lambda model=model: self._ready(model))  # type: ignore[misc]
        for name in (*decision.sleep, *decision.relieve):
            self._leave(self.models[name])
        if decision.relieve:
            self.strain = replace(self.strain, relieved=self.now)
        for name in decision.drain:
            self.models[name].state = Is.DRAINING
        for name in decision.refuse:
            model = self.models[name]
            self.refused.add(name)
            model.state, model.queue = Is.OUT, []
        if decision.again is not None:
            assert decision.again > self.now
            self.at(decision.again, lambda: None)
        held = [one for one in self.models.values() if one.state not in {Is.OUT, Is.WAITING}]
        assert sum(one.size for one in held) <= self.budget
        assert not any(one.name in other.apart for one in held for other in held)


def check(decision: Decision, holders: list[Holder], waiters: list[Waiter]) -> None:
    """No model leaves for nothing, no pinned or busy one leaves at once, and a waiter gets one answer at most."""
    by_name = {one.name: one for one in holders}
    leaving = {*decision.sleep, *decision.drain}
    relieved = {*decision.relieve}
    assert not leaving & relieved
    assert not any(by_name[name].pinned or by_name[name].leaving for name in leaving | relieved)
    assert not any(by_name[name].busy for name in (*decision.sleep, *decision.relieve))
    answers = [*decision.load, *decision.decline, *decision.refuse]
    assert len(answers) == len(set(answers))
    wanted = [one for one in waiters if one.name not in decision.refuse]
    staying = sum(one.size for one in holders if not one.leaving)
    if leaving:
        assert wanted
    if len(wanted) == 1:
        room = BUDGET - wanted[0].size - staying + sum(by_name[name].size for name in leaving | relieved)
        assert not leaving or room >= 0
        needless = [name for name in leaving - wanted[0].apart if room - by_name[name].size >= 0]
        assert not needless, "one of them left for nothing"


sizes = st.lists(st.integers(1, 11), min_size=2, max_size=5)
asked = st.lists(
    st.tuples(st.floats(0, 20), st.integers(0, 4), st.floats(0.1, MAX_REQUEST)), min_size=1, max_size=60
)


pairs = st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=4)
strained = st.lists(
    st.tuples(st.floats(0, 300), st.floats(0, 120), st.sampled_from([Pressure.WARNING, Pressure.CRITICAL])),
    max_size=2,
)


@pytest.mark.fault(106, 160)
@given(sizes, st.integers(-1, 4), asked, pairs, strained)
def test_in_any_history_the_budget_holds_and_nobody_waits_for_ever(
    sizes: list[int],
    pinned: int,
    asked: list[tuple[float, int, float]],
    pairs: set[tuple[int, int]],
    strained: list[tuple[float, float, Pressure]],
) -> None:
    machine = Machine([Model(str(n), size, n == pinned) for n, size in enumerate(sizes)])
    for name, model in machine.models.items():
        both = {pair for pair in pairs if int(name) in pair and pair[0] != pair[1]}
        model.apart = frozenset(str(n) for pair in both for n in pair) - {name}
    for begin, seconds, pressure in strained:
        machine.at(begin, lambda pressure=pressure: machine.feel(pressure))  # type: ignore[misc]
        machine.at(begin + seconds, lambda: machine.feel(Pressure.NORMAL))
    when = 0.0
    for pause, number, takes in asked:
        when += pause
        name = str(number % len(sizes))
        machine.at(when, lambda name=name, takes=takes: machine.ask(name, takes))  # type: ignore[misc]
    machine.run()
    assert all(not model.queue for model in machine.models.values())
    assert all(cannot_be_with_the_pinned(machine, machine.models[name]) for name in machine.refused)
    # Before a worker's turn, each other one may load, use its time, finish its requests, and leave, twice at most.
    turn = LOAD + PATIENCE + MAX_REQUEST + LEAVE
    short = sum(seconds + QUIET for _, seconds, _ in strained)
    assert max(machine.waits, default=0.0) <= 2 * len(sizes) * turn + turn + short


def cannot_be_with_the_pinned(machine: Machine, model: Model) -> bool:
    pinned = [one for one in machine.models.values() if one.pinned and one is not model]
    room = BUDGET - sum(one.size for one in pinned)
    return model.size > room or any(one.name in model.apart for one in pinned)


def test_two_models_that_are_asked_for_all_the_time_change_places_seldom() -> None:
    machine = Machine([Model("a", 6, pinned=False), Model("b", 6, pinned=False)])
    for second in range(600):
        for name in "ab":
            machine.at(float(second), lambda name=name: machine.ask(name, 2.0))  # type: ignore[misc]
    machine.run()
    assert machine.loads <= 600 / PATIENCE + 2
    assert len(machine.waits) == 1200
    assert max(machine.waits) < 3 * (PATIENCE + LOAD + LEAVE)


def test_a_large_model_has_its_turn_however_often_small_ones_are_asked_for() -> None:
    machine = Machine(
        [Model("a", 5, pinned=False), Model("b", 5, pinned=False), Model("large", 10, pinned=False)]
    )
    for second in range(300):
        machine.at(float(second), lambda: machine.ask("a", 2.0))
        machine.at(second + 0.5, lambda: machine.ask("b", 9.0))
    machine.at(20.0, lambda: machine.ask("large", 1.0))
    machine.run()
    assert max(machine.waits) < 2 * (PATIENCE + LOAD + LEAVE + 9.0)
