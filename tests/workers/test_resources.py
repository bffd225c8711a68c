"""The load gate: at most so many at once, first come, first served."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.workers.resources import LoadGate


class Bench:
    """A gate, and who was granted a slot in which order."""

    def __init__(self, slots: int) -> None:
        self.gate = LoadGate(slots)
        self.granted: list[object] = []

    def acquire(self, *keys: object) -> None:
        for key in keys:
            self.gate.acquire(key, lambda key=key: self.granted.append(key))  # type: ignore[misc]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_no_more_than_the_slots_are_granted_at_once(slots: int) -> None:
    bench = Bench(slots)
    bench.acquire(*"abcd")
    assert bench.granted == list("abcd")[:slots]


def test_a_freed_slot_goes_to_who_waited_longest() -> None:
    bench = Bench(1)
    bench.acquire(*"abc")
    bench.gate.release("a")
    assert bench.granted == ["a", "b"]
    bench.gate.release("b")
    assert bench.granted == ["a", "b", "c"]


def test_who_leaves_the_queue_is_not_granted() -> None:
    bench = Bench(1)
    bench.acquire(*"abc")
    bench.gate.release("b")
    bench.gate.release("a")
    assert bench.granted == ["a", "c"]


def test_giving_back_what_one_does_not_have_frees_nothing() -> None:
    bench = Bench(1)
    bench.acquire(*"ab")
    bench.gate.release("a stranger")
    bench.gate.release("a")
    bench.gate.release("a")
    bench.acquire("c")
    assert bench.granted == ["a", "b"]


def test_who_asks_again_stands_at_the_end() -> None:
    bench = Bench(1)
    bench.acquire(*"ab")
    bench.gate.release("a")
    bench.acquire("a")
    assert bench.granted == ["a", "b"]
    bench.gate.release("b")
    assert bench.granted == ["a", "b", "a"]


def test_a_grant_may_release_at_once() -> None:
    bench = Bench(1)
    bench.gate.acquire("a", lambda: bench.gate.release("a"))
    bench.acquire("b")
    assert bench.granted == ["b"]


@given(st.integers(1, 3), st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=60))
def test_slots_are_neither_lost_nor_doubled(slots: int, history: list[tuple[bool, int]]) -> None:
    bench = Bench(slots)
    asked: list[int] = []  # in order, holders first
    for wants, key in history:
        if wants and key not in asked:
            asked.append(key)
            bench.acquire(key)
        elif not wants and key in asked:
            asked.remove(key)
            bench.gate.release(key)
            bench.granted = [held for held in bench.granted if held != key]
        assert bench.granted == asked[:slots]


def test_the_gate_is_idle_when_nobody_loads_or_waits_to() -> None:
    bench = Bench(2)
    told: list[str] = []
    bench.acquire(*"abc")
    bench.gate.when_idle(lambda: told.append("idle"))
    for key in "ab":
        bench.gate.release(key)
        assert (bench.gate.idle, told) == (False, [])
    bench.gate.release("c")
    assert (bench.gate.idle, told) == (True, ["idle"])
    bench.acquire("a")
    bench.gate.release("a")
    assert told == ["idle"]  # once
    bench.gate.when_idle(lambda: told.append("at once"))
    assert told == ["idle", "at once"]
