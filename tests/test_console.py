"""What a person sees in a terminal: nothing that controls it; the table of workers."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from draftd.console import Terminal
from draftd.status_table import most_urgent, peer_lines, status_view, workers_table
from draftd.terminal_text import harmless, harmless_body, take_every_text

# Every C0 but tab and line break, DEL, C1, and the bidirectional controls.
STEERING = {chr(point) for point in (*range(0x20), *range(0x7F, 0xA0))} - {"\n", "\t"} | set(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
EVIL = "a\x1b]0;owned\x07\x1b[2Jb\x9b31mc\u202ed\u2066e\x7f\x00f\rg[bold]h[/bold][/]:smile:"


def as_if_by(terminal: Terminal, *, is_terminal: bool = False) -> str:
    """What it wrote, without colours and cursor movements, which are rich's own."""
    assert isinstance(terminal.file, io.StringIO)
    text = terminal.file.getvalue()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "") if is_terminal else text


def a_terminal(*, is_terminal: bool = False) -> Terminal:
    made = Terminal()
    made.file = io.StringIO()
    made._force_terminal = is_terminal
    made._width = 200
    return made


def _table(text: str) -> Table:
    made = Table(text, title=text)
    made.add_row(text)
    made.add_row(Text(text))
    return made


def _meanwhile(terminal: Terminal, shown: AbstractContextManager[object]) -> None:
    with shown:
        terminal.say("")  # below it, what is live is drawn again


WAYS: dict[str, Callable[[Terminal], object]] = {
    "say": lambda terminal: terminal.say(EVIL),
    "say with style": lambda terminal: terminal.say(Text(EVIL, style="bold"), EVIL, style="red"),
    "show": lambda terminal: terminal.show(_table(EVIL)),
    "rule": lambda terminal: terminal.rule(EVIL),
    "piece": lambda terminal: terminal.piece(EVIL),
    "piece with style": lambda terminal: terminal.piece(EVIL, "green"),
    "data": lambda terminal: terminal.data(EVIL),
    "busy": lambda terminal: _meanwhile(terminal, terminal.busy(EVIL)),
    "live": lambda terminal: _meanwhile(terminal, Live(Text(EVIL), console=terminal)),
    "print": lambda terminal: terminal.print(EVIL, Text(EVIL)),
}


@pytest.mark.fault(71)
@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_that_is_printed_can_steer_the_terminal(way: str, is_terminal: bool) -> None:
    terminal = a_terminal(is_terminal=is_terminal)
    WAYS[way](terminal)
    written = as_if_by(terminal, is_terminal=is_terminal)
    kept = set("\u202e\u2066") if way == "data" and not is_terminal else set()
    assert STEERING.intersection(written) - kept == set()
    if way not in {"busy", "live"} or (way == "live" and is_terminal):  # busy is drawn by a clock
        assert "[bold]h[/bold][/]:smile:" in written


@pytest.mark.fault(71)
def test_what_steers_is_shown_and_all_else_is_as_it_was() -> None:
    assert harmless("".join(sorted(STEERING))).isprintable()
    assert harmless("é 漢 😀‍👩 — ✓\tx\r\ny\n") == "é 漢 😀‍👩 — ✓\tx\ny\n"
    assert harmless("\x1b[2J\u202e") == "\\x1b[2J\\u202e"


@pytest.mark.fault(71)
def test_a_name_cannot_fake_a_line() -> None:
    body = {"a": ["x\nworker failed", {"b": "\x1b"}], "n": 1.5, "none": None}
    assert harmless_body(body) == {"a": ["x\\x0aworker failed", {"b": "\\x1b"}], "n": 1.5, "none": None}


@pytest.mark.fault(71)
def test_the_table_of_workers_is_as_wide_as_what_it_shows() -> None:
    last = {"reason": "exit\x1b", "meaning": EVIL, "lines": [EVIL]}
    rows = [row(EVIL, state="failed", last_exit=last, notes=[EVIL]), row("a" * 10)]
    terminal = a_terminal()
    terminal.show(status_view({"workers": rows, "warm_spare": None}, 200))
    lines = as_if_by(terminal).splitlines()
    assert STEERING.intersection("".join(lines)) == set()
    evil, plain = (next(line for line in lines if start in line) for start in ("\\x1b]0;", "a" * 10))
    assert evil.index("8000") == plain.index("8000")
    assert harmless_body(EVIL) in evil


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_moves_in_a_terminal_is_a_plain_word_in_a_pipe(is_terminal: bool) -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=is_terminal, color_system=None)
    console.print(workers_table([row("a", state="starting")], 120))
    line = next(line for line in console.file.getvalue().splitlines() if "starting" in line)  # type: ignore[attr-defined]
    assert (line.split()[1] == "starting") == (not is_terminal)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "koi8-r"])
def test_a_terminal_that_is_not_utf8_gets_what_looks_alike(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding=encoding))
    take_every_text()
    terminal = Terminal()
    terminal._width = 120
    terminal.say("4 – 5 … → ≤ ✓ ✗ 漢")
    terminal.data("→ 漢")
    terminal.show(workers_table([row("a", state="starting")], 120))
    written = raw.getvalue().decode(encoding)
    assert "-> " in written
    assert "\\u6f22" in written
    assert "-----" in written
    if encoding == "ascii":
        assert written.startswith("4 - 5 ... -> <= + x \\u6f22\n")


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
        "prompt_cache": {"ratio": 0.9, "bytes": 45_000_000},
        "requests": 1,
        "queue": 0,
        "restarts": 0,
        "since": "2026-11-23T00:00:00+00:00",
        "reason": "",
        "due": None,
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
        "reason": "exit (exit code 1); given up",
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
        line.split()[0]: line.split("80%")[1].split("8000")[0].split()
        for line in text.splitlines()
        if "8000" in line
    }
    assert told == {"a": ["3"], "b": ["auto", "≤", "8"], "c": ["lookup"], "d": ["–"]}


def test_nothing_is_said_of_sharing_where_nobody_shares() -> None:
    assert "share" not in shown(row("a"), row("b"))


LONG = [f"qwen2.5-3b-speculative-{name}" for name in ("fast", "max")]


def width_of(text: str) -> int:
    return max(map(len, text.splitlines()))


@pytest.mark.parametrize("width", [60, 70, 80, 100, 140, 1000])
def test_the_table_fits_and_says_first_what_matters_most(width: int) -> None:
    rows = [row(name, queue=12, memory_bytes=21_800_000_000, requests=12345) for name in LONG]
    console = Console(file=io.StringIO(), width=width)
    console.print(workers_table(rows, width))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert width_of(text) <= width
    assert "max   " in text  # in one line, in short where there is no room
    for figure in ("ready", "12", "20.0", "80%"):
        assert figure in text
    assert ("21.8 GB" in text) == (width >= 60)
    assert (LONG[0] in text) == (width >= 140)


def test_in_a_pipe_every_figure_is_kept() -> None:
    terminal = Terminal()
    terminal.file = io.StringIO()
    terminal._width = None
    terminal.show(workers_table([row(LONG[0], requests=12345)], terminal.room))
    text = as_if_by(terminal)
    for figure in (LONG[0], "ready", "8000", "20.0", "80%", "312 MB", "12345"):
        assert figure in text


def test_why_a_worker_is_not_ready_stands_below_the_table() -> None:
    last = {"reason": "exit", "meaning": "exit code 1", "lines": ["q", "x", "y", "z"]}
    soon = (datetime.now(UTC) + timedelta(seconds=12.4)).isoformat()
    text = shown(
        row("a", state="waiting", reason="for its turn to load, after b"),
        row("b", state="backoff", reason="exit (exit code 1)", due=soon, last_exit=last),
        row("c", state="asleep", reason="starts with a request", last_exit=last),
        row("d"),
    )
    assert "a waiting: for its turn to load, after b" in text
    assert "b backoff: exit (exit code 1); starts again in 12 s" in text
    assert [f"\n    {word}\n" in text for word in "qxyz"] == [False, True, True, True]
    assert text.count("    z") == 1  # of one that sleeps the last end is past
    assert "c asleep: starts with a request" in text
    assert "d ready:" not in text


def test_a_reason_that_several_have_is_said_once() -> None:
    asleep = {"state": "asleep", "reason": "starts with a request"}
    text = shown(
        *(row(f"w-{number}", **asleep) for number in range(10)), row("w-x", state="failed", reason="exit")
    )
    assert text.count("asleep: starts with a request") == 1
    assert "0, 1, 2, 3, 4, 5, 6, 7 and 2 more asleep: starts with a request" in text.replace("w-", "")
    assert "failed: exit" in text


def test_peers_in_trouble_come_first_and_the_others_are_counted() -> None:
    out = {"state": "out", "reason": "no connection", "due": None}
    rows = [
        {"name": f"p{number}", "state": "new", **(out if number == 3 else {"reason": "", "due": None})}
        for number in range(5)
    ]
    well = {
        "state": "well",
        "models": ["m"],
        "requests": {},
        "active": 0,
        "tokens_per_second": {},
        "load": {},
        "last_failure": None,
    }
    lines = [str(line) for line in peer_lines([{"name": "w", **well}, *rows[3:], {"name": "v", **well}], 3)]
    assert lines == [
        "peer p3 is left out: no connection",
        "peer p4 has not answered yet",
        "peer w: 1 model, 0 open, 0 answered",
        "and 1 more peer",
    ]


def test_where_there_is_no_room_for_all_those_in_trouble_and_at_work_are_shown() -> None:
    states = ["asleep", "ready", "ready", "starting", "failed", "asleep"]
    rows = [row(f"w-{number}", state=state) for number, state in enumerate(states)]
    rows[2]["queue"] = 1
    assert [one["name"] for one in most_urgent(rows, 4)] == ["w-1", "w-2", "w-3", "w-4"]
    assert [one["name"] for one in most_urgent(rows, 1)] == ["w-4"]
    assert most_urgent(rows, 9) == rows
    console = Console(file=io.StringIO(), width=100)
    console.print(workers_table(rows, 100, 4))
    assert isinstance(console.file, io.StringIO)
    assert "and 2 more: 2 asleep; 'draftd status' shows all" in console.file.getvalue()
