"""ports: consecutive, never a taken one, and who took it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import psutil
import pytest

from daemon.workers.ports import HIGHEST, Holder, PortBook, holder_of, is_free_port, parse_lsof

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


# --- real sockets -------------------------------------------------------------------------------------------

Listen = Callable[..., int]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Listens on an address (at a free port unless one is given) until the test ends; returns the port."""
    with ExitStack() as stack:

        def start(host: str = "127.0.0.1", port: int = 0) -> int:
            listener = stack.enter_context(socket.create_server((host, port)))
            return int(listener.getsockname()[1])

        yield start


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_port_is_free_when_nobody_listens() -> None:
    assert is_free_port(free_port())


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_with_a_listener_is_busy_also_one_on_all_addresses(listen: Listen, host: str) -> None:
    assert not is_free_port(listen(host))


def test_a_port_that_is_bound_but_not_listened_on_yet_is_busy() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert not is_free_port(bound.getsockname()[1])


def test_a_listener_that_binding_would_not_notice_is_noticed(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, where loopback can be bound beside a listener on all addresses."""
    port = listen()
    monkeypatch.setattr(socket.socket, "bind", lambda _socket, _address: None)
    assert not is_free_port(port)


def test_a_port_that_waits_out_an_old_connection_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            server_side, _ = listener.accept()
            server_side.close()  # who closes first is left in TIME_WAIT
            assert client.recv(1) == b""
    with socket.socket() as strict, pytest.raises(OSError, match="in use"):
        strict.bind(("127.0.0.1", port))
    assert is_free_port(port)


def test_busy_ports_are_skipped_for_real(listen: Listen) -> None:
    base = listen()
    port, skipped = PortBook(base).take("a")
    assert skipped[0] == base
    assert port == base + len(skipped)
    assert is_free_port(port)


def test_the_holder_of_a_port_is_named(listen: Listen) -> None:
    port, name = listen(), psutil.Process().name()
    found = holder_of(port)
    assert (found.port, found.pid) == (port, os.getpid())
    assert found.name
    assert name.startswith(found.name)  # lsof cuts it
    assert str(found) == f"port {port} is held by {found.name} (pid {os.getpid()})"


def test_a_connection_does_not_make_its_owner_the_holder(listen: Listen) -> None:
    port = listen()
    with closing(socket.create_connection(("127.0.0.1", port))) as client:
        own = int(client.getsockname()[1])
        assert holder_of(own) == Holder(own, None, None)


def test_a_holder_that_the_system_does_not_name_is_said_to_be_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(psutil, "net_connections", denied)
    assert str(holder_of(8000)) == "port 8000 is held by a process that the system does not name"


@pytest.mark.parametrize(
    ("output", "pid", "name"),
    [
        ("p4242\ncPython\nf3\n", 4242, "Python"),
        ("p4242\ncnode\nf23\nf24\np4343\ncother\nf3\n", 4242, "node"),
        ("p4242\n", 4242, None),
        ("p7\ncGoogle Chrome\n\n", 7, "Google Chrome"),
        ("", None, None),
        ("\n", None, None),
        ("cPython\n", None, None),
        ("px\ncPython\n", None, None),
        ("lsof: WARNING: can't stat()\n", None, None),
    ],
)
def test_the_holder_is_read_from_what_lsof_says(output: str, pid: int | None, name: str | None) -> None:
    assert parse_lsof(8000, output) == Holder(8000, pid, name)
