"""The table of workers, and below it why some of them are not ready."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from draftd.console import hinted, out
from draftd.table_columns import fitting
from draftd.telemetry.told import named, short_names
from draftd.terminal_text import harmless_body

Row = Mapping[str, Any]

STYLES = {
    "ready": "green",
    "waiting": "yellow",
    "starting": "yellow",
    "stopping": "yellow",
    "backoff": "red",
    "failed": "bold red",
    "asleep": "dim",
    "stopped": "dim",
}
MOVING = {"starting", "stopping"}
# In the order of the table, and how soon each is left out where there is no room for all: the highest first.
COLUMNS = {
    "model": 0, "state": 0, "queue": 0, "tok/s": 0, "accepted": 0, "draft": 2, "port": 1, "memory": 3,
    "cached": 7, "requests": 4, "restarts": 5, "for": 6,
}  # fmt: skip
DUE = {
    "backoff": "starts again",
    "stopping": "at the latest",
}  # how the time by which a state ends is told
MIN_SHOWN = 500_000  # bytes: less would be 0 MB
LEFT = {"model", "state"}
PEER_STATES = {"new": "has not answered yet", "out": "is left out"}


def status_view(body: Mapping[str, Any], width: int, most: int | None = None) -> RenderableType:
    """The body of /api/status: the table of workers, the peers, and the warm spare if there is one."""
    parts = [workers_table(body["workers"], width, most)] if body["workers"] else []
    parts += peer_lines(body.get("peers", ()), most)
    if problem := body.get("reload_problem"):
        parts.append(Text(f"the files on disk are not in force: {problem}", style="red"))
    if spare := body.get("warm_spare"):
        waits = "waits" if spare["warm"] else "is being made"
        told = f"a warm spare {waits}: pid {spare['pid']}, {memory(spare['memory_bytes'])}"
        parts.append(Text(told, style="dim"))
    if sharing := body.get("sharing"):
        parts.append(Text(sharing, style="dim"))
    if (stored := body.get("stored_prompts")) and stored["files"]:
        parts.append(Text(_stored(stored), style="dim"))
    return Group(*parts)


def _stored(known: Mapping[str, int]) -> str:
    number = "1 prompt is" if known["files"] == 1 else f"{known['files']} prompts are"
    return f"{number} stored on the disk: {memory(known['bytes'])} of {memory(known['limit_bytes'])}"


def workers_table(rows: Iterable[Row], width: int, most: int | None = None) -> RenderableType:
    """One line per worker, and below the table why one is not ready. `width` is the terminal's, in columns. With
    `most`, only so many are shown: those in trouble, then those at work; the others are counted.
    """
    every = [harmless_body(row) for row in rows]
    rows = most_urgent(every, most or len(every))
    names, titles = _fitting(rows, width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in titles:
        table.add_column(
            title, justify="left" if title in LEFT else "right", no_wrap=title != "model", overflow="fold"
        )
    for row in rows:
        cells = _cells(row, names)
        table.add_row(*(_shown(title, cells[title], row) for title in titles))
    workers = list({row["worker"]: row for row in rows[::-1]}.values())[
        ::-1
    ]  # once, though profiles share it
    left_out = [Text(_counted(every, rows), style="dim")] if len(rows) < len(every) else []
    shared = [Text(_sharing(row), style="dim") for row in workers if row["shares_with"]]
    notes = [Text(f"{row['name']}: {note}", style="yellow") for row in workers for note in row["notes"]]
    return Group(table, *left_out, *shared, *notes, *_reasons(workers, names))


def most_urgent(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many rows, in their order: those in trouble first, then those at work, on the way and ready."""

    def urgency(row: Row) -> int:
        if row["state"] in {"failed", "backoff"}:
            return 0
        if row.get("active") or row["queue"]:
            return 1
        return 4 if row["state"] in {"asleep", "stopped"} else 3 if row["state"] == "ready" else 2

    kept = sorted(range(len(rows)), key=lambda at: urgency(rows[at]))[:most]
    return [rows[at] for at in sorted(kept)]


def _counted(every: Sequence[Row], shown: Sequence[Row]) -> str:
    states = Counter(row["state"] for row in every) - Counter(row["state"] for row in shown)
    told = ", ".join(f"{number} {state}" for state, number in states.most_common())
    return hinted(f"and {len(every) - len(shown)} more: {told}; 'draftd status' shows all")


def peer_lines(rows: Iterable[Row], most: int | None = None) -> list[Text]:
    """A line per peer, those that are left out first; with `most` only so many, and how many more there are."""
    every = sorted(map(harmless_body, rows), key=lambda row: row["state"] == "well")
    lines = [_peer(row) for row in every[:most]]
    more = len(every) - len(lines)
    return [*lines, Text(f"and {more} more peer{'' if more == 1 else 's'}", style="dim")] if more else lines


def _peer(row: Row) -> Text:
    """A line for a peer: how it is, what it has, and what it does for this daemon."""
    if row["state"] != "well":
        due = f"; asked again {remaining(row['due'])}" if row["due"] else ""
        reason = f": {row['reason']}" if row["reason"] else ""
        return Text(f"peer {row['name']} {PEER_STATES[row['state']]}{reason}{due}", style=STYLES["backoff"])
    count, answered = len(row["models"]), row["requests"].get("answered", 0)
    models = f"{count} model{'' if count == 1 else 's'}"
    speeds = row["tokens_per_second"].values()
    speed = f", {max(speeds):.1f} tok/s" if speeds else ""
    busy = sum(load["open"] for load in row["load"].values())
    of_others = f" (of {busy})" if busy > row["active"] else ""
    failure = row["last_failure"]
    failed = f"; {duration(failure['at'])} ago: {failure['reason']}" if failure else ""
    text = (
        f"peer {row['name']}: {models}, {row['active']} open{of_others}, {answered} answered{speed}{failed}"
    )
    return Text(text, style="green")


def _fitting(rows: Sequence[Row], width: int) -> tuple[Mapping[str, str], list[str]]:
    """How the workers are named, and the columns for which there is room. Short names come before fewer columns."""
    full = {row["name"]: row["name"] for row in rows}
    short = short_names(full)
    spinner = 2 if any(row["state"] in MOVING for row in rows) else 0
    with_full, with_short = (
        fitting([_cells(row, names) for row in rows], COLUMNS, width, beside=spinner)
        for names in (full, short)
    )
    if with_full is not None and with_full == with_short:
        return full, with_full
    return short, with_short or [title for title, rank in COLUMNS.items() if not rank]


def _sharing(row: Row) -> str:
    names = ", ".join(sorted([row["name"], *row["shares_with"]]))
    return f"{names} share one worker; its memory is shown with {row['worker']}"


def _cells(row: Row, names: Mapping[str, str]) -> dict[str, str]:
    speed, ratio = row["tokens_per_second"], row["acceptance"]["ratio"]
    active = row.get("active", 0)
    return {
        "model": names[row["name"]],
        "state": row["state"],
        "port": str(row["port"] or "–"),
        "draft": _drafts(row),
        "accepted": "–" if ratio is None else f"{ratio:.0%}",
        "tok/s": f"{speed:.1f}" if speed else "–",
        "memory": memory(row["memory_bytes"]),
        "cached": _cached(row["prompt_cache"]),
        "requests": str(row["requests"]),
        "queue": f"{active} + {row['queue']}" if active and row["queue"] else str(active or row["queue"]),
        "restarts": str(row["restarts"]),
        "for": duration(row["since"]),
    }


class _Moving(Spinner):
    """A state that will change soon. In a pipe it is its word alone, by which programs find it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.is_terminal:
            yield from super().__rich_console__(console, options)
        else:
            yield self.text


def _shown(title: str, text: str, row: Row) -> RenderableType:
    if title == "state":
        style = STYLES.get(text, "")
        shown = Text(text, style=style)
        return _Moving(out.spinner, shown, style=style) if text in MOVING else shown
    if title == "accepted" and text != "–":
        from draftd.profiles import MIN_PAYING_ACCEPTANCE  # late: pydantic takes as long as all else

        pays = row["acceptance"]["ratio"] >= MIN_PAYING_ACCEPTANCE
        return Text(text, style="green" if pays else "yellow")
    return text


def _cached(known: Mapping[str, Any]) -> str:
    """How much of the last prompts was cached, and what the cache takes."""
    ratio = "–" if known["ratio"] is None else f"{known['ratio']:.0%}"
    return f"{ratio}, {memory(known['bytes'])}" if (known["bytes"] or 0) >= MIN_SHOWN else ratio


def _drafts(row: Row) -> str:
    if row["num_draft_tokens"]:
        return f"{'auto ≤ ' if row['auto_draft'] else ''}{row['num_draft_tokens']}"
    return ", ".join(row.get("drafters", ())) or "–"


def _reasons(rows: Iterable[Row], names: Mapping[str, str]) -> Iterator[Text]:
    """Why workers are not ready, once for all that have the same reason; after a failure, with the last words."""
    told: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["state"] != "ready" and row.get("reason"):
            told.setdefault((row["state"], _reason(row)), []).append(names[row["name"]])
    for (state, reason), whose in told.items():
        yield Text(hinted(f"{named(whose)} {state}: {reason}"), style=STYLES.get(state, ""))


def _reason(row: Row) -> str:
    state, last = row["state"], row["last_exit"]
    due = f"; {DUE[state]} {remaining(row['due'])}" if row.get("due") and state in DUE else ""
    lines = last["lines"][-3:] if last and state in {"backoff", "failed"} else []
    return f"{row['reason']}{due}" + "".join(f"\n    {line}" for line in lines)


def memory(size: int | None) -> str:
    """Bytes for people: '312 MB', '2.1 GB'."""
    if size is None:
        return "–"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def duration(since: str) -> str:
    """How long ago an ISO time is: '12 s', '3 min', '2 h', '5 d'."""
    return _span((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds())


def remaining(due: str) -> str:
    """How long it takes until an ISO time: 'in 12 s', 'now'."""
    seconds = (datetime.fromisoformat(due) - datetime.now(UTC)).total_seconds()
    return f"in {_span(seconds)}" if seconds > 0 else "now"


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
