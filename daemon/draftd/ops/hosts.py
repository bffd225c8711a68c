"""Runs modules of draftd on the other machines of a profile's group, by ssh. Blocks for up to a minute each."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from draftd.ops.doctor.facts import HostReport
from draftd.ops.host_report import report
from draftd.profiles import Profile
from draftd.protocol import SSH, SSH_FAILED

LIMIT = 60.0  # seconds
COMPARED = ("draftd", "mlx", "mlx-lm")
MAX_WORDS = 300  # characters of what ssh says


def ssh_command(profile: Profile, host: str, module: str, *words: str) -> list[str]:
    """The command line that runs a module of draftd on another machine, with the group's Python."""
    python = (profile.distributed.python if profile.distributed else None) or sys.executable
    return [*SSH, "--", host, "exec " + shlex.join([python, "-P", "-m", module, *words])]


def look(profiles: Iterable[Profile]) -> Iterator[HostReport]:
    """Look at the machines of all groups, including this one."""
    for profile in profiles:
        group = profile.distributed
        if group is None or not group.hosts:
            continue
        for machine in group.hosts:
            request = {
                "models": [profile.model],
                "addresses": list(machine.ips) if group.backend == "ring" else [],
            }
            here = report({**request, "models": []})
            if machine.local:
                yield HostReport(profile.name, "", strange=tuple(here["strange"]))
            else:
                yield _asked(profile, machine.ssh, request, here)


def pull(profile: Profile) -> Iterator[tuple[str, str]]:
    """Download the target model on the other machines of a group; yield each machine, and why it failed or ""."""
    for host in profile.distributed.elsewhere if profile.distributed else ():
        done = subprocess.run(
            ssh_command(profile, host, "draftd.ops.pull", profile.model),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        yield host, "" if done.returncode == 0 else f"it ended with exit code {done.returncode}"


def _asked(profile: Profile, host: str, request: dict[str, Any], here: dict[str, Any]) -> HostReport:
    began = time.time()
    try:
        done = _run(ssh_command(profile, host, "draftd.ops.host_report", json.dumps(request)))
    except (OSError, subprocess.TimeoutExpired) as error:
        return HostReport(profile.name, host, unreachable=str(error)[:MAX_WORDS])
    words = _last_line(done.stderr) or f"exit code {done.returncode}"
    if done.returncode == SSH_FAILED:
        return HostReport(profile.name, host, unreachable=words)
    try:
        told = json.loads(done.stdout)
        off = told["time"] - (began + time.time()) / 2
        return HostReport(
            profile.name,
            host,
            differing=tuple(
                f"{name} {told[name]} (here {here[name]})" for name in COMPARED if told[name] != here[name]
            ),
            missing=tuple(told["missing"]),
            strange=tuple(told["strange"]),
            clock_off=off,
        )
    except (ValueError, KeyError, TypeError):
        return HostReport(profile.name, host, broken=words)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:MAX_WORDS] if lines else ""
