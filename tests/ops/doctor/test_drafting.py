"""What the doctor says of drafting: what is accepted, and what was measured, by table."""

from __future__ import annotations

from typing import Any

from draftd.ops.doctor.facts import RunningDaemon, Severity
from tests.ops.doctor.well import ERROR, NOTE, WARNING, Case, bench, found, judge, low, of, row


def by_drafter(row: dict[str, Any], **accepted: int) -> dict[str, Any]:
    """Say how many of a thousand tokens of each drafter were accepted."""
    figures = {name: {"proposed": 1000, "accepted": count} for name, count in accepted.items()}
    return row | {"speculation": {"by_drafter": figures}}


TABLE: list[Case] = [
    (
        "what the engine says",
        {
            "daemon": RunningDaemon(
                4, "http://d", "1.0", (row("p-fast", draft_refusal="the layers keep Odd"),)
            )
        },
        ERROR,
        "p-fast cannot draft: the layers keep Odd",
        "remove draft_model and drafters from p-fast",
    ),
    (
        "low acceptance, with a shorter draft at hand",
        {
            "daemon": RunningDaemon(
                4, "http://d", "1.0", (low("p-max", 7), row("p-mid"), row("p-fast", num_draft_tokens=3))
            )
        },
        WARNING,
        "p-max: 40% of the draft model's tokens are accepted",
        "try p-mid (5 draft tokens)",
    ),
    (
        "low acceptance with the shortest draft",
        {"daemon": RunningDaemon(4, "http://d", "1.0", (low("p-fast", 3), row("p-max", num_draft_tokens=7)))},
        WARNING,
        "p-fast: 40% of the draft model's tokens are accepted",
        "try no draft_model",
    ),
    (
        "a draft model that is seldom right, beside lookups that are always",
        {"daemon": RunningDaemon(4, "http://d", "1.0", (by_drafter(row("p-max"), model=300, lookup=1000),))},
        WARNING,
        "p-max: 30% of the draft model's tokens are accepted",
        "try no draft_model",
    ),
    ("never measured", {"bench": None}, NOTE, "the speedup was never measured here", "draftd bench"),
    (
        "other models measured",
        {"bench": bench(d3=1.5) | {"model": "other"}},
        NOTE,
        "never measured",
        "draftd bench",
    ),
    (
        "too uncertain to call slower",
        {"bench": bench(d3=1.4, d7=0.93)},
        NOTE,
        "p-max: 0.93x the speed of no drafting",
        "draftd bench --runs 9",
    ),
    (
        "too uncertain to call faster",
        {"bench": bench(d3=1.4, d7=1.08)},
        NOTE,
        "p-max: 1.08x the speed of no drafting",
        "draftd bench --runs 9",
    ),
    (
        "slower, another length is faster",
        {"bench": bench(d3=1.4, d7=0.8)},
        WARNING,
        "p-max: 0.80x the speed of no drafting (bench of 2026-11-23)",
        "try 3 (x) draft tokens: 1.40x",
    ),
]


@of(TABLE)
def test_each_finding(facts: dict[str, Any], severity: Severity, what: str, do: str) -> None:
    judge(facts, severity, what, do)


def test_when_no_length_is_faster_than_none_the_draft_model_is_to_go() -> None:
    slow = found(bench=bench(d3=0.85, d7=0.8))
    assert [finding.severity for finding in slow] == [WARNING, WARNING]
    assert {finding.do for finding in slow} == {
        "remove draft_model from the profile: no draft length was clearly faster than none"
    }
