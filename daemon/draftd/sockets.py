"""Whether a port on this machine is free, and which process listens on one that is not."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass

import psutil

LOOPBACK = "127.0.0.1"


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


def is_free_port(port: int, host: str = LOOPBACK) -> bool:
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
