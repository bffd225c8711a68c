r"""What a person sees in a terminal: the one place that prints, and the table of workers, live or once.

Names of processes and models, prompts, answers and errors come from others. So every text that is printed is plain
(no markup of rich's), and whatever in it could steer a terminal, or show a line in another order than it has, is
written as \x1b or \u202e. `Terminal` does that last of all, whoever made the text; nothing else prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import typer
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from draftd.terminal_text import harmless, harmless_body, harmless_in_a_pipe

Row = Mapping[str, Any]


class Terminal(Console):
    """stdout or stderr, for people. Raises BrokenPipeError when nobody reads any more."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """rich's own, through which all goes that it prints; what is not rich's own code is made harmless."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)

    def say(self, *parts: str | Text, style: str = "") -> None:
        """A line of text, or some. It is wrapped by the terminal, so that it can be copied whole."""
        self.print(*parts, style=style or None, soft_wrap=True)

    def show(self, shown: RenderableType) -> None:
        """A table or the like, in the width of the terminal."""
        self.print(shown)

    def piece(self, text: str) -> None:
        """A part of a text, as it comes."""
        self._write(harmless(text))

    def data(self, text: str, *, end: str = "\n") -> None:
        """What other programs read, or what is kept in a file. Into a pipe it goes as it is, but for what would
        steer the terminal behind it.
        """
        self._write((harmless(text) if self.is_terminal else harmless_in_a_pipe(text)) + end)

    def confirm(self, question: str) -> None:
        """Ask; a no is typer.Abort."""
        typer.confirm(harmless(question), abort=True)

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show that something takes a while."""
        with self.status(Text(text), spinner=self.spinner):
            yield

    @property
    def spinner(self) -> str:
        """The name of a spinner that this terminal can show."""
        return "line" if self.options.ascii_only else "dots"

    def _write(self, text: str) -> None:
        self.file.write(text)
        self.file.flush()


out = Terminal()
err = Terminal(stderr=True)

STYLES = {
    "ready": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "backoff": "red",
    "failed": "bold red",
    "stopped": "dim",
}
NARROW = ("model", "state", "port", "draft", "accepted", "tok/s")
WIDE = (*NARROW, "memory", "requests", "queue", "restarts", "for")
ROOM_FOR_WIDE = 118  # columns of the terminal


def status_view(body: Mapping[str, Any], width: int) -> RenderableType:
    """The body of /api/status: the table of workers, and the warm spare if there is one."""
    table, spare = workers_table(body["workers"], width), body.get("warm_spare")  # an older daemon has none
    if not spare:
        return table
    waits = "waits" if spare["warm"] else "is being made"
    return Group(
        table, Text(f"a warm spare {waits}: pid {spare['pid']}, {memory(spare['memory_bytes'])}", style="dim")
    )


def workers_table(rows: Iterable[Row], width: int) -> RenderableType:
    """One line per worker, and below the table what went wrong last. `width` is the terminal's, in columns."""
    rows = [harmless_body(row) for row in rows]
    titles = WIDE if width >= ROOM_FOR_WIDE else NARROW
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in titles:
        left = title in {"model", "state"}
        table.add_column(
            title, justify="left" if left else "right", no_wrap=title != "model", overflow="fold"
        )
    for row in rows:
        cells = _cells(row)
        table.add_row(*(cells[title] for title in titles))
    workers = {row["worker"]: row for row in reversed(rows)}.values()  # once each, though profiles share it
    shared = [Text(_sharing(row), style="dim") for row in workers if row["shares_with"]]
    notes = [Text(f"{row['name']}: {note}", style="yellow") for row in workers for note in row["notes"]]
    trouble = (_trouble(row) for row in workers if row["state"] in {"backoff", "failed"})
    return Group(table, *shared, *notes, *trouble)


def _sharing(row: Row) -> str:
    names = ", ".join(sorted([row["name"], *row["shares_with"]]))
    return f"{names} share one worker; its memory is shown with {row['worker']}"


def _cells(row: Row) -> dict[str, RenderableType]:
    state = row["state"]
    shown: RenderableType = Text(state, style=STYLES.get(state, ""))
    if state in {"starting", "stopping"}:
        shown = Spinner(out.spinner, shown, style=STYLES[state])
    speed = row["tokens_per_second"]
    return {
        "model": row["name"],
        "state": shown,
        "port": str(row["port"] or "–"),
        "draft": _drafts(row),
        "accepted": _acceptance(row["acceptance"]["ratio"]),
        "tok/s": f"{speed:.1f}" if speed else "–",
        "memory": memory(row["memory_bytes"]),
        "requests": str(row["requests"]),
        "queue": str(row["queue"]),
        "restarts": str(row["restarts"]),
        "for": duration(row["since"]),
    }


def _drafts(row: Row) -> str:
    if row["num_draft_tokens"]:
        return f"{'auto ≤ ' if row['auto_draft'] else ''}{row['num_draft_tokens']}"
    return ", ".join(row.get("drafters", ())) or "–"


def _acceptance(ratio: float | None) -> Text:
    if ratio is None:
        return Text("–")
    from draftd.profiles import MIN_PAYING_ACCEPTANCE  # late: pydantic takes as long as all else

    return Text(f"{ratio:.0%}", style="green" if ratio >= MIN_PAYING_ACCEPTANCE else "yellow")


def _trouble(row: Row) -> Text:
    last = row["last_exit"]
    if not last:
        return Text(f"{row['name']}: {row['state']}", style="red")
    lines = "".join(f"\n    {line}" for line in last["lines"][-3:])
    return Text(f"{row['name']}: {last['reason']} ({last['meaning']}){lines}", style="red")


def memory(size: int | None) -> str:
    """Bytes for people: '312 MB', '2.1 GB'."""
    if size is None:
        return "–"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def duration(since: str) -> str:
    """How long ago an ISO time is: '12 s', '3 min', '2 h', '5 d'."""
    seconds = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds())
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def what_next(url: str, model: str, command: str) -> str:
    """What a new user can try once the daemon serves; `command` is what starts draftd in their shell."""
    question = '[{"role": "user", "content": "What is a draft model?"}]'
    body = f'{{"model": "{model}", "stream": true, "messages": {question}}}'
    return (
        f"draftd serves at {url}/v1   (Ctrl-C stops it). Its dashboard: {url}/\nIn another terminal:\n\n"
        f"  curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n    -d '{body}'\n"
        f"  {command} test\n  {command} status\n"
        f"  curl -s {url}/metrics | grep draftd_draft\n"
    )
