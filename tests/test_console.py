"""What a person sees in a terminal: the table of workers."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from draftd.console import workers_table


def row(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "worker": name,
        "shares_with": [],
        "state": "ready",
        "port": 8000,
        "drafters": ["lookup", "model"],
        "num_draft_tokens": 3,
        "auto_draft": False,
        "acceptance": {"ratio": 0.8},
        "tokens_per_second": 20.0,
        "memory_bytes": 312_000_000,
        "requests": 1,
        "queue": 0,
        "restarts": 0,
        "since": "2026-11-23T00:00:00+00:00",
        "notes": [],
        "last_exit": None,
        **fields,
    }


def shown(*rows: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(workers_table(rows, 200))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_profiles_that_share_a_worker_have_a_row_each_and_its_notes_once() -> None:
    broken = {
        "worker": "b",
        "state": "failed",
        "notes": ["port 7999 was busy"],
        "last_exit": {"reason": "exit", "meaning": "exit code 1", "lines": []},
    }
    text = shown(
        row("a", memory_bytes=None, shares_with=["b"], **broken),
        row("b", shares_with=["a"], **broken),
        row("c"),
    )
    assert text.count("8000") == 3
    assert text.count("312 MB") == 2
    assert "a, b share one worker; its memory is shown with b" in text
    assert text.count("port 7999 was busy") == text.count("exit code 1") == 1


def test_what_drafts_and_how_long_is_told() -> None:
    text = shown(
        row("a"),
        row("b", auto_draft=True, num_draft_tokens=8),
        row("c", num_draft_tokens=0, drafters=["lookup"]),
        row("d", num_draft_tokens=0, drafters=[]),
    )
    told = {
        line.split()[0]: line.split("8000")[1].split("80%")[0].split()
        for line in text.splitlines()
        if "8000" in line
    }
    assert told == {"a": ["3"], "b": ["auto", "≤", "8"], "c": ["lookup"], "d": ["–"]}


def test_nothing_is_said_of_sharing_where_nobody_shares() -> None:
    assert "share" not in shown(row("a"), row("b"))
