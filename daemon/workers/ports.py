"""Ports for workers: consecutive from a base, skipping what is taken, and naming who took it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from daemon.workers.command import HOST

HIGHEST = 65535


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that listens on a port; fields are None where the system does not tell us."""

    port: int
    pid: int | None
    name: str | None

    def __str__(self) -> str:
        if self.pid is None:
            return f"port {self.port} is held by a process that the system does not name"
        return f"port {self.port} is held by {self.name or 'a process'} (pid {self.pid})"


class PortBook:
    """Which worker has which port. A worker keeps its port for its next child as long as it stays free."""

    def __init__(self, base: int, is_free: Callable[[int], bool] | None = None) -> None:
        self._base = base
        self._is_free = is_free or is_free_port
        self._taken: dict[str, int] = {}
        self._reserved: dict[str, int] = {}

    def reserve(self, name: str, port: int | None) -> None:
        """Keep `port`, which a profile asks for, from being given to others; None ends that."""
        if port is None:
            self._reserved.pop(name, None)
        else:
            self._reserved[name] = port

    def take(self, name: str) -> tuple[int, list[int]]:
        """A free port for the worker `name`, and the busy ports that were skipped to find it.

        Raises OSError if no port is free.
        """
        others = {
            port for book in (self._taken, self._reserved) for owner, port in book.items() if owner != name
        }
        fixed = self._reserved.get(name)
        wanted = fixed or self._taken.get(name)
        first = [wanted] if wanted is not None else []
        skipped: list[int] = []
        for port in (*first, *range(self._base, HIGHEST + 1)):
            if port in skipped or (port in others and port != fixed):
                continue  # silently: it is one of ours, and was not asked for
            if port not in others and self._is_free(port):
                self._taken[name] = port
                return port, skipped
            skipped.append(port)
        raise OSError(f"no port is free from {self._base} upwards")

    def release(self, name: str) -> None:
        """The worker is gone for good."""
        self._taken.pop(name, None)
        self._reserved.pop(name, None)


def is_free_port(port: int, host: str = HOST) -> bool:
    """Whether a listener can be bound. Ports in TIME_WAIT count as free, as they do for mlx_lm.server."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    # macOS lets us bind a port on loopback that somebody holds on all addresses: ask whether anyone answers.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as caller:
        caller.settimeout(0.5)
        return caller.connect_ex((host, port)) != 0


def holder_of(port: int) -> Holder:
    """Who listens on `port`. Blocking: up to a second where lsof must be asked."""
    if sys.platform == "darwin":  # psutil needs root there to see the sockets of other processes
        return _holder_by_lsof(port)
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return Holder(port, None, None)
    for found in connections:
        if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr.port == port and found.pid:
            return Holder(port, found.pid, _process_name(found.pid))
    return Holder(port, None, None)


def _process_name(pid: int) -> str | None:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return None


def _holder_by_lsof(port: int) -> Holder:
    lsof = shutil.which("lsof") or "/usr/sbin/lsof"
    command = [lsof, "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return Holder(port, None, None)
    return parse_lsof(port, done.stdout)


def parse_lsof(port: int, output: str) -> Holder:
    """The first process in lsof's field output: 'p<pid>' and 'c<command>' lines."""
    fields = {line[0]: line[1:] for line in reversed(output.splitlines()) if line}
    pid = fields.get("p", "")
    return Holder(port, int(pid), fields.get("c")) if pid.isdigit() else Holder(port, None, None)
