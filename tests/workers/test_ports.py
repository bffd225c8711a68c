"""ports: consecutive, never a taken one, and who took it."""

from __future__ import annotations

import socket

import pytest

from draftd.sockets import is_free_port
from draftd.workers.ports import HIGHEST, PortBook

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
    assert book(HIGHEST - 1, base=HIGHEST - 1).take("a") == (HIGHEST, [HIGHEST - 1])
    with pytest.raises(OSError, match="no port is free from 65534 upwards"):
        book(HIGHEST - 1, HIGHEST, base=HIGHEST - 1).take("a")
    ports = book(base=HIGHEST)
    ports.reserve("somebody", HIGHEST)
    with pytest.raises(OSError, match="no port is free"):
        ports.take("a")


def test_busy_ports_are_skipped_for_real() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        base = listener.getsockname()[1]
        port, skipped = PortBook(base).take("a")
        assert skipped[0] == base
        assert port == base + len(skipped)
        assert is_free_port(port)
