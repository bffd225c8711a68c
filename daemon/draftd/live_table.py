"""A live table that leaves nothing behind when its terminal becomes narrower.

rich goes up as many lines as it wrote. But most terminals wrap long lines anew when they become narrower, so that
what was written takes more lines by then, and the upper ones stayed. So this one keeps how wide each line was, and
goes up by what they take now. It writes no blanks at the ends of lines: they would be wrapped too. What has left
the screen by then cannot be taken back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.live_render import LiveRender
from rich.segment import Segment


def make_live(console: Console, table: Callable[[], RenderableType], *, transient: bool = False) -> Live:
    """A live display of what `table` returns, drawn when it is refreshed. `transient`: it is gone at its end."""
    live = Live(console=console, auto_refresh=False, transient=transient, get_renderable=table)
    live._live_render = _Wrapped(console, table(), anew=wraps_anew(os.environ))
    return live


def wraps_anew(environment: Mapping[str, str]) -> bool:
    """Whether this terminal wraps its lines anew when it becomes narrower: all do but a few, which cut them off."""
    if "TMUX" in environment:  # whatever it runs in
        return True
    cuts = environment.get("TERM", "").startswith(("linux", "vt"))
    return not (cuts or "XTERM_VERSION" in environment or "STY" in environment)  # STY: GNU screen


def lines_now(widths: Iterable[int], room: int) -> int:
    """How many lines of `room` columns the lines of these widths take."""
    return sum(max(1, -(-width // max(room, 1))) for width in widths)


class _Wrapped(LiveRender):
    """rich's own, which goes up by the lines that there are now."""

    def __init__(self, console: Console, renderable: RenderableType, *, anew: bool) -> None:
        super().__init__(renderable)
        self._console, self._anew = console, anew
        self._widths: list[int] = []  # of the lines as they were written, in columns

    def position_cursor(self) -> Control:
        self._measure()
        return super().position_cursor()

    def restore_cursor(self) -> Control:
        self._measure()
        return super().restore_cursor()

    def _measure(self) -> None:
        if self._anew and self._shape is not None:
            self._shape = self._shape[0], lines_now(self._widths, self._console.width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts = (part for part in super().__rich_console__(console, options) if isinstance(part, Segment))
        lines = [_without_end(line) for line in Segment.split_lines(parts)]
        self._widths = [sum(cell_len(part.text) for part in line) for line in lines]
        for number, line in enumerate(lines):
            yield from ([Segment.line()] if number else [])
            yield from line


def _without_end(line: Iterable[Segment]) -> list[Segment]:
    """A line without the blanks at its end."""
    kept = list(line)
    while kept and not kept[-1].text.strip(" "):
        kept.pop()
    if kept:
        kept[-1] = Segment(kept[-1].text.rstrip(" "), kept[-1].style)
    return kept
