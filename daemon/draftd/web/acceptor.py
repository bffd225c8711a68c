"""Accepts connections as long as enough file descriptors are left for what the daemon itself opens; the rest wait.

The daemon needs file descriptors for its workers: to start one, to send it a request, to check on it. Clients, even
those without a key, could use them all up. So some are held in reserve, and connections that would need those stay
in the system's queue until others end. (asyncio's own server accepts every connection, and closes those that it has
no descriptor for.)
"""

from __future__ import annotations

import asyncio
import functools
import resource
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import structlog

from draftd.web.tls_start import Tls, begin

MAX_KEPT = 64  # descriptors held in reserve, or a quarter of the process's limit if that is less
MAX_LIMIT = 4_096  # descriptors: enough for all who have a reason to come, and a bound on what strangers cost
AT_ONCE = 64  # connections that are accepted in one turn of the loop
BACKLOG = 128  # connections that may wait
PAUSE = 0.1  # seconds until it looks again whether there is room
SAY_AGAIN = 60.0  # seconds between two warnings

log = structlog.get_logger("web")


class Acceptor:
    """Listens on every address of a host, over `tls` if there is one; `make` makes the protocol of a connection."""

    def __init__(self, make: Callable[[], asyncio.Protocol], tls: Tls | None = None) -> None:
        self._make = make
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._starting: set[asyncio.Task[object]] = set()
        self._credit = 0  # connections that may be accepted before descriptors are counted again
        self._said = -SAY_AGAIN
        self._resuming: asyncio.TimerHandle | None = None

    async def open(self, host: str, port: int) -> None:
        """Listen. Raises OSError."""
        raise_limit()
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                listening = socket.create_server(address, family=family, backlog=BACKLOG)
                self._sockets.append(listening)
                listening.setblocking(False)
        except OSError:
            self.close()
            raise
        self._resume()

    def close(self) -> None:
        """Accept no new connections; existing ones stay open. Idempotent."""
        self._pause()
        if self._resuming is not None:
            self._resuming.cancel()
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()
        for starting in self._starting:
            starting.cancel()

    def _resume(self) -> None:
        self._resuming = None
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _pause(self) -> None:
        for listening in self._sockets:
            self._loop.remove_reader(listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            if not self._has_room():
                self._wait_for_room()
                return
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor or no memory after all
                self._wait_for_room()
                return
            connection.setblocking(False)
            starting = self._loop.create_task(self._begun(connection))
            self._starting.add(starting)
            starting.add_done_callback(functools.partial(self._started, connection))

    async def _begun(self, connection: socket.socket) -> None:
        if self._tls is None:
            await self._loop.connect_accepted_socket(self._make, connection)
        else:
            await begin(connection, self._make, self._tls)

    def _started(self, connection: socket.socket, starting: asyncio.Task[object]) -> None:
        self._starting.discard(starting)
        if starting.cancelled() or starting.exception() is not None:
            connection.close()

    def _has_room(self) -> bool:
        self._credit -= 1
        if self._credit < 0:
            # Counting takes a while, so it is not done each time. Half: each client may need a worker's too.
            self._credit = (descriptors_left() - 1) // 2
        return self._credit >= 0

    def _wait_for_room(self) -> None:
        self._pause()
        self._resuming = self._loop.call_later(PAUSE, self._resume)
        if time.monotonic() - self._said >= SAY_AGAIN:
            self._said = time.monotonic()
            log.warning("file descriptors are running short; new connections wait", limit=_limit())


def descriptors_left() -> int:
    """How many more descriptors this process may open before it needs the reserve; negative if it is in there."""
    limit = _limit()
    try:
        used = psutil.Process().num_fds()
    except (psutil.Error, OSError):
        return -1  # not even one is left to count them with
    return limit - used - min(MAX_KEPT, limit // 4)


def raise_limit() -> None:
    """Raise the soft limit on open files to the hard one, at most to MAX_LIMIT (macOS starts with 256)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_LIMIT if hard == resource.RLIM_INFINITY else min(hard, MAX_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _limit() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit if limit != resource.RLIM_INFINITY else 2**20
