"""What the doctor says of the system, the daemon, ports and other programs, by table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from draftd.ops.doctor import diagnose
from draftd.ops.doctor.facts import Facts, OtherProgram, RunningDaemon, Severity, WantedPort
from tests.ops.doctor.well import ERROR, FINE, GB, MAC, NODE, NOTE, WARNING, Case, judge, of, row

TABLE: list[Case] = [
    ("old Python", {"versions": replace(MAC, python="3.10.1")}, ERROR, "Python 3.10.1 is too old", "install"),
    ("Rosetta", {"versions": replace(MAC, processor="x86_64")}, ERROR, "built for Intel", "arm64"),
    (
        "old macOS",
        {"versions": replace(MAC, system_version="13.7")},
        ERROR,
        "macOS 13.7 is too old",
        "update",
    ),
    ("no mlx", {"versions": replace(MAC, mlx=None)}, ERROR, "mlx is not installed", "uv pip install"),
    (
        "no mlx-lm",
        {"versions": replace(MAC, mlx_lm=None)},
        ERROR,
        "mlx-lm is not installed",
        "uv pip install",
    ),
    ("misfit", {"versions": replace(MAC, mlx="0.31.0")}, ERROR, "which needs >=0.32.2", "uv pip install"),
    ("new mlx-lm", {"versions": replace(MAC, mlx_lm="0.33.0")}, WARNING, "0.33.0 is not a 0.32", "<0.33"),
    ("Linux", {"versions": replace(MAC, system="Linux")}, NOTE, "mlx computes on the CPU", "Mac"),
    ("bad profile", {"config_error": "a.toml:3: no"}, ERROR, "a.toml:3: no", "draftd check"),
    ("no daemon", {"daemon": None}, NOTE, "no daemon is running", "draftd up"),
    ("state folder", {"state_error": "others can write in /state"}, ERROR, "others can write", "see above"),
    (
        "private folder",
        {"guarded": (Path("/Users/me/Documents/p"),)},
        NOTE,
        "/Users/me/Documents/p is in a folder that macOS keeps",
        "Full Disk Access",
    ),
    ("stale note", {"stale_note": True}, NOTE, "left its note behind in /state", "--fix"),
    ("no cache", {"hub_cache": Path("/h"), "hub_cache_exists": False}, NOTE, "there is no /h", "--fix"),
    (
        "mute",
        {"daemon": RunningDaemon(4, "http://d", "1.0", None)},
        ERROR,
        "(pid 4) does not answer",
        "kill 4",
    ),
    ("old code", {"version": "2.0"}, WARNING, "the daemon is draftd 1.0, installed is 2.0", "draftd down"),
    (
        "failed worker",
        {
            "daemon": RunningDaemon(
                4,
                "http://d",
                "1.0",
                (row("w", state="failed", last_exit={"reason": "exit", "meaning": "SIGKILL"}),),
            )
        },
        ERROR,
        "w is failed: exit (SIGKILL)",
        "draftd logs w",
    ),
    (
        "backing off",
        {"daemon": RunningDaemon(4, "http://d", "1.0", (row("w", state="backoff"),))},
        WARNING,
        "w is backoff",
        "draftd restart w",
    ),
    (
        "other models",
        {"daemon": RunningDaemon(4, "http://d", "1.0", (row("p-fast", model="demo"),))},
        NOTE,
        "other models than the profile files name: p-fast",
        "nothing, if you meant that",
    ),
    (
        "proxy port",
        {"ports": (WantedPort(8080, "proxy", "draftd", *NODE),), "daemon": None},
        ERROR,
        "port 8080 is held by node (pid 77)",
        "kill 77   or: draftd up --port 8081",
    ),
    (
        "proxy port of a stranger while the daemon is elsewhere",
        {"ports": (WantedPort(8080, "proxy", "draftd", *NODE),)},
        NOTE,
        "port 8080 is held by node (pid 77)",
        "kill 77",
    ),
    (
        "nameless holder on a Mac",
        {
            "ports": (
                WantedPort(
                    8080, "proxy", "draftd", "port 8080 is held by a process that the system does not name"
                ),
            ),
            "daemon": None,
        },
        ERROR,
        "does not name",
        "sudo lsof -nP -iTCP:8080 -sTCP:LISTEN",
    ),
    (
        "worker port",
        {"ports": (WantedPort(8000, "worker", "workers", "port 8000 is held by x (pid 5)", (5,)),)},
        NOTE,
        "port 8000 is held by x (pid 5)",
        "nothing, or: kill 5",
    ),
    (
        "fixed port",
        {"ports": (WantedPort(9000, "fixed", "p-max", "port 9000 is held by x (pid 5)", (5,)),)},
        WARNING,
        "port 9000 is held by x (pid 5)",
        "kill 5",
    ),
    (
        "busy program",
        {"programs": (OtherProgram(9, "ollama", 250.0, GB),)},
        NOTE,
        "ollama (pid 9) uses 250 % of a processor and 1.0 GB",
        "end it",
    ),
    ("large program", {"programs": (OtherProgram(9, "chrome", 1.0, 4 * GB),)}, NOTE, "4.0 GB", "end it"),
]


@of(TABLE)
def test_each_finding(facts: dict[str, Any], severity: Severity, what: str, do: str) -> None:
    judge(facts, severity, what, do)


@pytest.mark.parametrize(
    ("facts", "severity", "words"),
    [
        (Facts("1", MAC, certificate_days=90.0), FINE, "expires in 90 days"),
        (Facts("1", MAC, certificate_days=3.2), WARNING, "expires in 3 days"),
        (Facts("1", MAC, certificate_error="tls_cert: /c: is broken"), ERROR, "tls_cert: /c: is broken"),
    ],
)
def test_a_certificate_is_judged_by_how_long_it_can_be_used(
    facts: Facts, severity: Severity, words: str
) -> None:
    [found] = [one for one in diagnose(facts) if one.topic == "https"]
    assert found.severity == severity
    assert words in found.what
    assert bool(found.do) == (severity > FINE)
