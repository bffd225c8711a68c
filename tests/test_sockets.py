"""sockets: whether a port is free, and who holds it, with real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import psutil
import pytest

from draftd.sockets import Holder, holder_of, is_free_port, parse_lsof

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
