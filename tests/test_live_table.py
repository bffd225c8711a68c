"""The live table: what it leaves behind when its terminal becomes narrower."""

from __future__ import annotations

import io

import pytest
from rich.text import Text

from draftd.live_table import lines_now, make_live, wraps_anew
from draftd.status_table import workers_table
from tests.test_console import a_terminal, row

UP = "\x1b[1A"


def written(width: int) -> str:
    """What a table of 100 columns writes when it is drawn again in a terminal that has this width by now."""
    terminal = a_terminal(is_terminal=True)
    terminal._width, terminal.is_interactive = 100, True
    text = Text("\n".join(["head" + " " * 90, "─" * 95, "a" * 60 + "  ", "end"]))
    live = make_live(terminal, lambda: text)
    with live:
        live.refresh()
        assert isinstance(terminal.file, io.StringIO)
        terminal.file.seek(0)
        terminal.file.truncate()
        terminal._width = width
        text.plain = "narrow"
        live.refresh()
        return terminal.file.getvalue()


@pytest.mark.fault(192)
@pytest.mark.parametrize(("width", "lines"), [(100, 4), (95, 4), (94, 5), (60, 5), (59, 6), (30, 8)])
def test_it_goes_up_by_the_lines_that_it_takes_now(
    monkeypatch: pytest.MonkeyPatch, width: int, lines: int
) -> None:
    for name in ("TMUX", "STY", "XTERM_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert written(width).count(UP) == lines - 1
    monkeypatch.setenv("XTERM_VERSION", "XTerm(390)")  # what it cuts off takes no more lines
    assert written(width).count(UP) == 3


def test_no_line_ends_with_blanks() -> None:
    terminal = a_terminal(is_terminal=True)
    terminal.is_interactive = True
    with make_live(terminal, lambda: workers_table([row("a"), row("b")], 200)) as live:
        live.refresh()
    assert isinstance(terminal.file, io.StringIO)
    assert [line for line in terminal.file.getvalue().splitlines() if line.endswith(" ")] == []
    assert "ready" in terminal.file.getvalue()


@pytest.mark.parametrize(
    ("environment", "anew"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)"}, False),
        ({"TERM": "screen", "TMUX": "/tmp/tmux-0/default,1,0", "XTERM_VERSION": "XTerm(390)"}, True),
        ({"TERM": "screen", "STY": "1.pts"}, False),
        ({"TERM": "linux"}, False),
        ({}, True),
    ],
)
def test_which_terminals_wrap_their_lines_anew(environment: dict[str, str], anew: bool) -> None:
    assert wraps_anew(environment) is anew


def test_lines_are_counted_by_the_room_that_they_have() -> None:
    assert lines_now([], 80) == 0
    assert lines_now([0, 1, 80, 81, 161], 80) == 1 + 1 + 1 + 2 + 3
