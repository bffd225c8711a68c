"""What the doctor says where all is well, and how bad the worst is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from draftd.hub import ModelConfig
from draftd.ops.doctor import diagnose, exit_code
from draftd.ops.doctor.facts import Finding, OtherProgram, RunningDaemon, Severity, WantedPort
from tests.ops.doctor.well import (
    BIG,
    ERROR,
    FINE,
    GB,
    NODE,
    NOTE,
    PLAIN,
    SMALL,
    WARNING,
    WELL,
    found,
    low,
    profile,
    row,
)


def test_where_all_is_well_the_doctor_says_what_it_looked_at_and_nothing_else() -> None:
    findings = diagnose(WELL)
    assert {finding.severity for finding in findings} == {FINE}
    assert exit_code(findings) == 0
    assert [finding.what for finding in findings] == [
        "Python 3.12.4, mlx 0.32.4 and mlx-lm 0.32.2 fit each other",
        "2 profiles are valid",
        "draftd 1.0 runs: pid 4, http://127.0.0.1:8080",
        "8000, 8080: free or draftd's own",
        "big is here, 2.0 GB",
        "small is here, 500 MB",
        "p-fast: drafted by lookup and small (3 tokens)",
        "p-max: drafted by lookup and small (7 tokens)",
        "small and big have one vocabulary of 1000 tokens",
        "1 worker starts by itself, with 2.5 GB of weights; the memory is 16.0 GB",
        "p-fast: 80% of the draft model's tokens are accepted",
        "p-fast: 1.50x the speed of no drafting (bench of 2026-11-23)",
        "p-max: 1.20x the speed of no drafting (bench of 2026-11-23)",
    ]


@pytest.mark.parametrize(
    "facts",
    [
        {"ports": (WantedPort(8080, "proxy", "draftd", *NODE, ours=True),)},
        {
            "daemon": RunningDaemon(4, "http://d", "1.0", (low("p-fast", 3, proposed=50),))
        },  # too few to judge by
        {"daemon": RunningDaemon(4, "http://d", "1.0", (low("plain", 0),))},
        {
            "memory_total": 1000 * GB,
            "memory_share": 750 * GB,
            "profiles": (profile("p-fast", 3), profile("b", 7)),
        },  # little to save
        {"profiles": (profile("p-fast", 3), profile("p-max", 7)), "share": True},
        {"profiles": (profile("p-fast", 3), profile("p-max", 7, share_engine=False)), "share": True},
        {"memory_free": GB},  # while the daemon runs, what is not free is its own
        {"programs": (OtherProgram(9, "idle", 5.0, GB),)},
        {"models": {"big": replace(BIG, local=True), "small": SMALL}},
        {
            "models": {"big": replace(BIG, config=ModelConfig("phi3small"))},
            "profiles": (profile("p-fast", **PLAIN),),  # it wants no drafts
        },
        {  # a worker without drafters has nothing to lose
            "daemon": RunningDaemon(4, "http://d", "1.0", (row("p-fast", drafters=[], draft_refusal="no"),))
        },
    ],
)
def test_what_is_in_order_is_no_finding(facts: dict[str, Any]) -> None:
    assert found(**facts) == []


@pytest.mark.parametrize(
    ("severities", "code"),
    [([], 0), ([FINE, NOTE], 0), ([NOTE, WARNING, FINE], 1), ([WARNING, ERROR], 2)],
)
def test_the_exit_code_is_that_of_the_worst(severities: list[Severity], code: int) -> None:
    assert exit_code(Finding(severity, "t", "w") for severity in severities) == code
