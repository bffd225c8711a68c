"""Whether a port on this machine is free, which processes listen on one that is not, and why one cannot listen."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil

LOOPBACK = "127.0.0.1"
BOTH_LOOPBACKS = (LOOPBACK, "::1")  # "localhost" is either, and macOS tries the second one first
EVERYWHERE = {"0.0.0.0", "::"}
ANSWER_WITHIN = 0.5  # seconds
MIN_FREE_FOR_ALL = 1024  # ports below belong to the administrator
MAX_PORT = 65535
MAX_PORTS_TRIED = 100  # for one that is free
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Process:
    """A process that listens; `name` is None where the system does not tell us."""

    pid: int
    name: str | None = None

    def __str__(self) -> str:
        return f"{self.name or 'a process'} (pid {self.pid})"


@dataclass(frozen=True, slots=True)
class Holders:
    """The processes that listen on a port, on whichever addresses; none where the system does not tell us."""

    port: int
    processes: tuple[Process, ...] = ()

    def __str__(self) -> str:
        who = " and ".join(map(str, self.processes)) or "a process that the system does not name"
        return f"port {self.port} is held by {who}"


def is_free_port(port: int, host: str = LOOPBACK) -> bool:
    """Whether a listener can be bound to `host`, and nobody answers there already.

    Ports in TIME_WAIT count as free, as they do for mlx_lm.server. Blocking: up to half a second.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    if not all(_can_bind(family, address) for family, _, _, _, address in addresses):
        return False
    # macOS lets us bind a port on loopback that somebody holds on all addresses: ask whether anyone answers.
    return not any(_answers(family, address) for family, _, _, _, address in addresses)


def _can_bind(family: int, address: tuple[Any, ...]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind(address)
        except OSError:
            return False
    return True


def _answers(family: int, address: tuple[Any, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as caller:
            caller.settimeout(ANSWER_WITHIN)
            return caller.connect_ex(address) == 0
    except OSError:  # no such family here
        return False


def is_answered(host: str, port: int) -> bool:
    """Whether somebody answers already where clients of a listener on `host` would go.

    Binding does not tell: macOS lets 127.0.0.1 be bound beside another's * or [::], and a client that says
    "localhost" may reach the listener of either family. Blocking: up to a second.
    """
    asked = BOTH_LOOPBACKS if host in {"localhost", *BOTH_LOOPBACKS, *EVERYWHERE} else (host,)
    for each in asked:
        try:
            addresses = socket.getaddrinfo(each, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            continue
        # Only what is this machine's own: at another one's address anybody may answer.
        own = [
            (family, address)
            for family, _, _, _, address in addresses
            if _can_bind(family, _any_port(address))
        ]
        if any(_answers(family, address) for family, address in own):
            return True
    return False


def _any_port(address: tuple[Any, ...]) -> tuple[Any, ...]:
    return (address[0], 0, *address[2:])


def next_free_port(port: int, host: str) -> int | None:
    """The first port above `port` on which anybody could listen at `host`; None if there is none nearby."""
    first = max(port + 1, MIN_FREE_FOR_ALL)
    for each in range(first, min(first + MAX_PORTS_TRIED, MAX_PORT + 1)):
        if is_free_port(each, host) and not is_answered(host, each):
            return each
    return None


def why_not_listening(host: str, port: int, error: Exception | None) -> str:
    """Why nobody can listen on `host` and `port`, and what can be done. Without an `error` somebody answers there.

    Blocks for seconds.
    """
    place = f"cannot listen on {f'[{host}]' if ':' in host else host}:{port}"
    number = error.errno if isinstance(error, OSError) else None
    if error is None or number == errno.EADDRINUSE:
        return f"{place}: {holders_of(port)}; {_another(port, host)}"
    if number == errno.EACCES:
        return f"{place}: ports below {MIN_FREE_FOR_ALL} are for the administrator; {_another(port, host)}"
    choices = f"'--host {LOOPBACK}' serves this machine only, '--host 0.0.0.0' others too"
    if number == errno.EADDRNOTAVAIL:
        return f"{place}: this machine does not have that address; {choices}"
    if isinstance(error, socket.gaierror | UnicodeError) or number == errno.EINVAL:
        return f"{place}: that is neither an address nor the name of a host; {choices}"
    return f"{place}: {os.strerror(number) if number else error}"


def _another(port: int, host: str) -> str:
    free = next_free_port(port, host)
    return f"port {free} is free: '--port {free}'" if free else "'--port' chooses another port"


def holders_of(port: int) -> Holders:
    """Who listens on `port`. Blocking: up to two seconds where lsof must be asked."""
    if sys.platform == "darwin":  # psutil needs root there to see the sockets of other processes
        return Holders(port, _by_lsof(port))
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return Holders(port)
    pids = (
        found.pid
        for found in connections
        if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr.port == port and found.pid
    )
    return Holders(port, tuple(Process(pid, _process_name(pid)) for pid in dict.fromkeys(pids)))


def _process_name(pid: int) -> str | None:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return None


def _by_lsof(port: int) -> tuple[Process, ...]:
    lsof = shutil.which("lsof") or "/usr/sbin/lsof"
    command = [lsof, "+c0", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=2, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(parse_lsof(done.stdout.splitlines()))


def parse_lsof(lines: Iterable[str]) -> Iterator[Process]:
    """The processes in lsof's field output: a line 'p<pid>' begins each, and 'c<command>' is its name."""
    pid: int | None = None
    for line in lines:
        kind, value = line[:1], line[1:]
        if kind in {"p", ""} and pid is not None:
            yield Process(pid)
        if kind == "p":
            pid = int(value) if value.isdecimal() else None
        elif kind == "c" and pid is not None:
            yield Process(pid, _unescaped(value))
            pid = None
    if pid is not None:
        yield Process(pid)


def _unescaped(name: str) -> str:
    r"""lsof writes spaces, and all that is not plain, as \x20."""
    raw = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), name.encode())
    return raw.decode("utf-8", "replace")
