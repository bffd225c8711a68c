"""sockets: whether a port is free, and who holds it, with real sockets."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from subprocess import PIPE

import psutil
import pytest

from draftd.sockets import (
    Holders,
    Process,
    holders_of,
    is_answered,
    is_free_port,
    next_free_port,
    parse_lsof,
    why_not_listening,
)

Listen = Callable[..., int]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Listens on an address (at a free port unless one is given) until the test ends; returns the port."""
    with ExitStack() as stack:

        def start(host: str = "127.0.0.1", port: int = 0) -> int:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = stack.enter_context(socket.create_server((host, port), family=family))
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


def test_every_holder_of_a_port_is_named(listen: Listen) -> None:
    port, name = listen(), psutil.Process().name()
    script = (
        f"import socket, sys; s = socket.create_server(('::1', {port}), family=socket.AF_INET6); "
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=PIPE, stdout=PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        found = holders_of(port)
        other.kill()
    assert {process.pid for process in found.processes} == {os.getpid(), other.pid}
    own = next(process for process in found.processes if process.pid == os.getpid())
    assert own.name
    assert name.startswith(own.name)
    assert f"{own.name} (pid {os.getpid()})" in str(found)
    assert " and " in str(found)


def test_a_connection_does_not_make_its_owner_the_holder(listen: Listen) -> None:
    port = listen()
    with closing(socket.create_connection(("127.0.0.1", port))) as client:
        own = int(client.getsockname()[1])
        assert holders_of(own) == Holders(own)


def test_a_holder_that_the_system_does_not_name_is_said_to_be_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: object) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(psutil, "net_connections", denied)
    assert str(holders_of(8000)) == "port 8000 is held by a process that the system does not name"


@pytest.mark.parametrize(
    ("output", "processes"),
    [
        ("p4242\ncPython\nf3\n", [Process(4242, "Python")]),
        ("p4242\ncnode\nf23\nf24\np4343\ncother\nf3\n", [Process(4242, "node"), Process(4343, "other")]),
        ("p4242\n", [Process(4242)]),
        ("p4242\nf3\np7\ncx\n", [Process(4242), Process(7, "x")]),
        ("p7\ncGoogle\\x20Chrome\\x20H\n\n", [Process(7, "Google Chrome H")]),
        ("p7\ncCaf\\xc3\\xa9 é\n", [Process(7, "Café é")]),
        ("p7\ncx\\xff\n", [Process(7, "x\ufffd")]),
        ("", []),
        ("\n", []),
        ("cPython\n", []),
        ("px\ncPython\n", []),
        ("lsof: WARNING: can't stat()\n", []),
    ],
)
def test_the_holders_are_read_from_what_lsof_says(output: str, processes: list[Process]) -> None:
    assert list(parse_lsof(output.splitlines())) == processes


# --- where nobody can listen --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "0.0.0.0"])
@pytest.mark.parametrize("held", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_who_answers_on_either_loopback_is_in_the_way(listen: Listen, host: str, held: str) -> None:
    port = listen(held)
    assert is_answered(host, port)
    assert not is_answered(host, free_port())


def test_a_stranger_at_an_address_that_is_not_ours_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect_ex", lambda _socket, address: asked.append(address))
    assert not is_answered("203.0.113.1", 80)
    assert asked == []


def test_a_taken_port_is_told_with_its_holder_and_a_free_one(listen: Listen) -> None:
    port = listen()
    text = why_not_listening("127.0.0.1", port, OSError(errno.EADDRINUSE, "in use"))
    free = next_free_port(port, "127.0.0.1")
    assert free is not None
    assert free > port
    assert text.startswith(f"cannot listen on 127.0.0.1:{port}: port {port} is held by ")
    assert f"(pid {os.getpid()})" in text
    assert text.endswith(f"; port {free} is free: '--port {free}'")
    assert "\n" not in text


def test_the_next_free_port_is_one_where_nobody_answers_at_all(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = listen("::1")
    assert next_free_port(port - 1, "127.0.0.1") != port
    monkeypatch.setattr("draftd.sockets.is_free_port", lambda port, host: False)
    assert next_free_port(port, "127.0.0.1") is None
    assert next_free_port(65535, "127.0.0.1") is None


@pytest.mark.parametrize(
    ("host", "error", "says"),
    [
        ("127.0.0.1", OSError(errno.EACCES, ""), "ports below 1024 are for the administrator; port "),
        ("203.0.113.1", OSError(errno.EADDRNOTAVAIL, ""), "this machine does not have that address"),
        ("nonsense", socket.gaierror(-2, "unknown"), "neither an address nor the name of a host"),
        ("a..b", UnicodeError("label empty"), "neither an address nor the name of a host"),
        (
            "fe80::1%x",
            OSError(errno.EINVAL, ""),
            "cannot listen on [fe80::1%x]:80: that is neither an address",
        ),
        ("127.0.0.1", OSError(errno.ENOBUFS, ""), os.strerror(errno.ENOBUFS)),
    ],
)
def test_why_nobody_can_listen_there_is_a_sentence(host: str, error: Exception, says: str) -> None:
    text = why_not_listening(host, 80, error)
    assert says in text
    assert "\n" not in text
