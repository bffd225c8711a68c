"""The acceptor: it listens, and leaves connections waiting when file descriptors run short."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import psutil
import pytest
from structlog.testing import capture_logs

from draftd.web import acceptor
from draftd.web.acceptor import AT_ONCE, Acceptor, descriptors_left
from tests.harness import free_ports

LIMIT = 10.0
HOST = "127.0.0.1"


class Echo(asyncio.Protocol):
    """One connection of the server under test."""

    made = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Echo.made += 1
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


@asynccontextmanager
async def listening(host: str = HOST) -> AsyncIterator[int]:
    Echo.made = 0
    one, port = Acceptor(Echo), free_ports()
    await one.open(host, port)
    try:
        yield port
    finally:
        one.close()
        one.close()


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not met():  # noqa: ASYNC110 - the protocol is called by the loop
            await asyncio.sleep(0.005)


@contextmanager
def left(count: int) -> Iterator[None]:
    """Only `count` more descriptors may be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_more_connections_than_in_one_turn_are_all_taken() -> None:
    async with listening() as port:
        with connected(port, AT_ONCE + 20):
            await until(lambda: Echo.made == AT_ONCE + 20)


async def test_it_listens_on_each_address_of_the_host() -> None:
    async with listening("localhost") as port:
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        writer.close()


async def test_a_taken_port_is_an_error_and_leaves_nothing_open() -> None:
    before = psutil.Process().num_fds()
    with socket.create_server((HOST, 0)) as other, pytest.raises(OSError, match="in use"):
        await Acceptor(Echo).open(HOST, other.getsockname()[1])
    assert psutil.Process().num_fds() == before


async def test_a_connection_that_is_just_being_accepted_when_it_closes_is_closed_too() -> None:
    before = psutil.Process().num_fds()
    one, port = Acceptor(Echo), free_ports()
    await one.open(HOST, port)
    with connected(port, 5):
        while not one._starting:  # noqa: ASYNC110 - one turn of the loop
            await asyncio.sleep(0)
        one.close()
        await until(lambda: not one._starting)
    await until(lambda: psutil.Process().num_fds() <= before)


def test_the_limit_is_raised_as_far_as_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    infinite = resource.RLIM_INFINITY
    for soft, hard, wanted in [
        (256, infinite, 4_096),
        (1024, 4096, 4096),
        (1024, 2**20, 4_096),
        (20_000, 2**20, 20_000),
        (infinite, infinite, infinite),
        (64, 64, 64),
    ]:
        limits = [(soft, hard)]
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits[-1])
        monkeypatch.setattr(resource, "setrlimit", lambda _, pair, limits=limits: limits.append(pair))
        acceptor.raise_limit()
        assert limits[-1] == (wanted, hard)


async def test_nothing_is_accepted_once_it_is_closed() -> None:
    async with listening() as port:
        with connected(port):
            await until(lambda: Echo.made == 1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port))


@pytest.mark.fault(26)
async def test_descriptors_are_kept_back_and_who_waits_is_served_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acceptor, "MAX_KEPT", 10)
    async with listening() as port:
        with connected(port, 40):  # each takes two descriptors of this process
            with left(10 + 12), capture_logs() as logs:
                await until(lambda: descriptors_left() <= 0 and Echo.made >= 10)  # taken, and then begun
                taken = Echo.made
                await asyncio.sleep(0.3)
                assert 10 <= Echo.made == taken <= 12
                spare = [os.dup(0) for _ in range(8)]  # there are enough for what the daemon may need
                for descriptor in spare:
                    os.close(descriptor)
                assert [entry["event"] for entry in logs] == [
                    "file descriptors are running short; new connections wait"
                ]
            await until(lambda: Echo.made == 40)


@pytest.mark.fault(26)
async def test_without_any_descriptor_it_waits_and_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def counted() -> int:
        nonlocal looks
        looks += 1
        return descriptors_left()

    monkeypatch.setattr(acceptor, "descriptors_left", counted)
    async with listening() as port:
        with connected(port):
            with left(0):
                await asyncio.sleep(0.5)
                assert Echo.made == 0
                assert 2 <= looks <= 10
            await until(lambda: Echo.made == 1)


@contextmanager
def connected(port: int, count: int = 1) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection((HOST, port)))
        yield
