"""Ports: consecutive, and never a taken one. Loads: at most so many at once, first come, first served."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.sockets import is_free_port
from draftd.workers.resources import MAX_PORT, LoadGate, PortBook

BASE = 8000


def book(*busy: int, base: int = BASE) -> PortBook:
    return PortBook(base, lambda port: port not in busy)


def test_workers_get_consecutive_ports() -> None:
    ports = book()
    assert [ports.take(name) for name in "abc"] == [(8000, []), (8001, []), (8002, [])]


def test_a_busy_port_is_skipped_and_told() -> None:
    ports = book(8000, 8002, 8003)
    assert ports.take("a") == (8001, [8000])
    assert ports.take("b") == (8004, [8000, 8002, 8003])


def test_a_worker_keeps_its_port_for_its_next_child() -> None:
    ports = book()
    ports.take("a")
    ports.take("b")
    assert ports.take("b") == (8001, [])


def test_a_worker_whose_port_was_taken_meanwhile_gets_the_next_one() -> None:
    busy: set[int] = set()
    ports = PortBook(BASE, lambda port: port not in busy)
    ports.take("a")
    ports.take("b")
    busy.add(8000)
    assert ports.take("a") == (8002, [8000])
    busy.clear()
    assert ports.take("a") == (8002, [])


def test_a_released_port_is_given_again() -> None:
    ports = book()
    ports.take("a")
    ports.reserve("b", 8001)
    ports.release("a")
    ports.release("b")
    ports.release("never there")
    assert [ports.take(name)[0] for name in "cd"] == [8000, 8001]


def test_a_fixed_port_is_kept_from_others_even_before_its_worker_starts() -> None:
    ports = book()
    ports.reserve("fixed", 8000)
    assert ports.take("a") == (8001, [])
    assert ports.take("fixed") == (8000, [])


def test_a_fixed_port_outside_the_row_is_taken_as_it_is() -> None:
    ports = book()
    ports.reserve("fixed", 9000)
    assert ports.take("fixed") == (9000, [])
    assert ports.take("a") == (8000, [])


def test_a_busy_fixed_port_is_told_and_another_one_used() -> None:
    ports = book(9000)
    ports.reserve("fixed", 9000)
    assert ports.take("fixed") == (8000, [9000])


def test_a_fixed_port_that_another_worker_has_is_told_too() -> None:
    ports = book()
    ports.take("a")
    ports.reserve("fixed", 8000)
    assert ports.take("fixed") == (8001, [8000])


def test_the_port_of_a_running_child_stays_its_own_when_its_profile_asks_for_another() -> None:
    ports = book()
    ports.take("a")
    ports.reserve("a", 9000)
    assert ports.take("b") == (8001, [])
    assert ports.take("a") == (9000, [])
    assert ports.take("c") == (8000, [])


def test_a_port_that_is_no_longer_fixed_is_free_for_others() -> None:
    ports = book()
    ports.reserve("fixed", 8000)
    ports.reserve("fixed", None)
    ports.reserve("never there", None)
    assert ports.take("a") == (8000, [])


def test_when_no_port_is_left_that_is_an_error_and_no_port_beyond_the_last() -> None:
    assert book(MAX_PORT - 1, base=MAX_PORT - 1).take("a") == (MAX_PORT, [MAX_PORT - 1])
    with pytest.raises(OSError, match="no port is free from 65534 upwards"):
        book(MAX_PORT - 1, MAX_PORT, base=MAX_PORT - 1).take("a")
    ports = book(base=MAX_PORT)
    ports.reserve("somebody", MAX_PORT)
    with pytest.raises(OSError, match="no port is free"):
        ports.take("a")


def test_busy_ports_are_skipped_for_real() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        base = listener.getsockname()[1]
        port, skipped = PortBook(base).take("a")
        assert skipped[0] == base
        assert port == base + len(skipped)
        assert is_free_port(port)


class Bench:
    """A gate, and who was granted a slot, in order."""

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
