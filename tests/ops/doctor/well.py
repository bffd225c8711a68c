"""Facts of a machine where all is well, and the cases in which something is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from draftd.hub import ModelConfig, ModelOnDisk
from draftd.ops.doctor import diagnose
from draftd.ops.doctor.facts import (
    Facts,
    Finding,
    RunningDaemon,
    Severity,
    Versions,
    Vocabularies,
    WantedPort,
)
from draftd.profiles import Profile

GB = 10**9
FINE, NOTE, WARNING, ERROR = Severity
MAC = Versions("3.12.4", "arm64", "Darwin", "15.1", "0.32.4", "0.32.2", ">=0.32.2")
QWEN = ModelConfig(model_type="qwen2")
BIG = ModelOnDisk("big", local=False, folder=Path("/big"), weight_bytes=2 * GB, config=QWEN)
SMALL = replace(BIG, name="small", weight_bytes=GB // 2)


def profile(name: str, length: int = 5, **fields: object) -> Profile:
    pair = {"model": "big", "draft_model": "small", "num_draft_tokens": length}
    return Profile.model_validate({"name": name, **pair, **fields})


def row(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "model": "big",
        "draft_model": "small",
        "drafters": ["lookup", "model"],
        "num_draft_tokens": 5,
        "auto_draft": False,
        "draft_refusal": None,
        "shares_with": [],
        "state": "ready",
        "last_exit": None,
        "acceptance": {"proposed": 1000, "accepted": 800, "ratio": 0.8},
        **fields,
    }


def low(name: str, length: int, ratio: float = 0.4, proposed: int = 1000) -> dict[str, Any]:
    figures = {"proposed": proposed, "accepted": int(ratio * proposed), "ratio": ratio}
    return row(name, num_draft_tokens=length, acceptance=figures)


def bench(**speed_ups: float) -> dict[str, Any]:
    ranked = sorted(speed_ups.items(), key=lambda item: -item[1])
    overall = [
        {"variant": f"{key[1:]} (x)", "speed_up": value, "low": value - 0.1, "high": value + 0.1}
        for key, value in ranked
    ]
    return {"at": "2026-11-23T18:00:00+00:00", "model": "big", "draft_model": "small", "overall": overall}


WELL = Facts(
    version="1.0",
    versions=MAC,
    profiles=(profile("p-fast", 3), profile("p-max", 7, autostart=False)),
    ports=(WantedPort(8000, "worker", "workers"), WantedPort(8080, "proxy", "draftd")),
    models={"big": BIG, "small": SMALL},
    vocabularies=(Vocabularies("big", "small", 0, 1000),),
    memory_total=16 * GB,
    memory_share=12 * GB,
    memory_free=8 * GB,
    disk_free=100 * GB,
    state_dir=Path("/state"),
    daemon=RunningDaemon(4, "http://127.0.0.1:8080", "1.0", (row("p-fast"),)),
    bench=bench(d3=1.5, d7=1.2),
)


def found(**facts: Any) -> list[Finding]:
    """The findings that are not fine when only `facts` differ from a machine where all is well."""
    return [finding for finding in diagnose(replace(WELL, **facts)) if finding.severity != FINE]


PLAIN: dict[str, Any] = {"draft_model": None, "num_draft_tokens": None}
NODE: tuple[str, tuple[int, ...]] = ("port 8080 is held by node (pid 77)", (77,))


Case = tuple[str, dict[str, Any], Severity, str, str]
"""Its name, what differs from where all is well, and the finding's severity, what, and do."""


def of(table: list[Case]) -> pytest.MarkDecorator:
    """A test of each of these cases."""
    return pytest.mark.parametrize(
        ("facts", "severity", "what", "do"), [case[1:] for case in table], ids=[case[0] for case in table]
    )


def judge(facts: dict[str, Any], severity: Severity, what: str, do: str) -> None:
    """With these facts there is one finding that fits, as bad as that, and it says what to do."""
    fitting = [finding for finding in found(**facts) if what in finding.what]
    assert [finding.severity for finding in fitting] == [severity], found(**facts)
    assert do in fitting[0].do
    assert len(fitting[0].why) > 10
