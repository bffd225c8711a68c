"""What a bench found: as a table for the terminal, as Markdown and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from draftd.ops.bench.stats import MATTERS, Cell, Sample, Spread, Standing
from draftd.table_columns import fitting

SAVED = "bench.json"  # the last report, in the state folder: the doctor reads it
MAX_BUSY = 25.0  # percent of the CPUs taken by others; beyond it the figures cannot be trusted
# In the order of the table, and how soon each is left out where there is no room for all: the highest first.
RANKS = {
    "prompts": 0, "temp": 0, "draft tokens": 0, "tokens/s": 0, "quartiles": 2, "speedup": 0, "accepted": 1,
    "first": 3,
}  # fmt: skip
TITLES = tuple(RANKS)
LEFT = {"prompts", "draft tokens"}
EDGE = 1  # column at the left of a table


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, on what, and what it means. `busy` is the share of the CPUs that others took just
    before, in percent.
    """

    at: str
    machine: str
    versions: dict[str, str]
    model: str
    draft_model: str
    runs: int
    max_tokens: int
    busy: float
    samples: tuple[Sample, ...]
    cells: tuple[Cell, ...]
    overall: tuple[Standing, ...]
    verdict: tuple[str, ...]


def to_json(report: Report) -> dict[str, Any]:
    """Everything, single generations included. Times in seconds, speeds in tokens per second."""
    return asdict(report)


def summary(report: Report) -> list[str]:
    """What was measured and how, and what it means."""
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    lines = [
        f"{short(report.model)} with {short(report.draft_model)} on {report.machine}; {versions}",
        f"Medians of {report.runs} interleaved runs of up to {report.max_tokens} tokens; tokens/s over the whole "
        "answer, including reading the prompt; 'first' is the time to the first token; no prompt was cached.",
    ]
    if report.busy > MAX_BUSY:
        lines.append(
            f"Other programs used {report.busy:.0f} % of the processors when this began: the figures are less "
            "certain than they look."
        )
    return lines


def short(model: str) -> str:
    """A hub name as it is, a folder by its last two parts."""
    path = PurePath(model)
    return "/".join(path.parts[-2:]) if path.is_absolute() else model


def rows(report: Report) -> list[tuple[str, ...]]:
    """The cells as texts, in the order of TITLES."""
    return [_texts(cell) for cell in report.cells]


def _texts(cell: Cell) -> tuple[str, ...]:
    return (
        cell.kind,
        f"{cell.temperature:g}",
        cell.variant,
        f"{cell.speed.median:.1f}",
        _range(cell.speed),
        f"{cell.speed_up.median:.2f}x" if cell.speed_up else "",
        "–" if cell.acceptance is None else f"{cell.acceptance:.0%}",
        f"{cell.first_token.median * 1000:.0f} ms",
    )


def _range(spread: Spread) -> str:
    return (
        f"{spread.low:.0f}–{spread.high:.0f}" if spread.high >= 100 else f"{spread.low:.1f}–{spread.high:.1f}"
    )


def shown_titles(report: Report, width: int) -> list[str]:
    """The columns of the table for which there is room."""
    cells = [dict(zip(TITLES, texts, strict=True)) for texts in rows(report)]
    return fitting(cells, RANKS, width, beside=EDGE) or [title for title, rank in RANKS.items() if not rank]


def table(report: Report, width: int) -> Table:
    """For the terminal: faster in green, slower in red. All of it fits into 80 columns."""
    titles = shown_titles(report, width)
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in titles:
        made.add_column(title, justify="left" if title in LEFT else "right", no_wrap=True)
    place = None
    for cell, texts in zip(report.cells, rows(report), strict=True):
        first = (cell.kind, cell.temperature) != place
        if first and place is not None:
            made.add_section()
        place = (cell.kind, cell.temperature)
        told = dict(zip(TITLES, texts, strict=True)) | ({} if first else {"prompts": "", "temp": ""})
        style = {"speedup": _style(cell)}
        made.add_row(*(Text(told[title], style=style.get(title, "")) for title in titles))
    return made


def _style(cell: Cell) -> str:
    if cell.speed_up is None or abs(cell.speed_up.median - 1) <= MATTERS:
        return ""
    return "green" if cell.speed_up.median > 1 else "red"


def to_markdown(report: Report) -> str:
    """A section of a page: how it was measured, the table, the verdict."""
    head = [_line(TITLES), "|---|---:|---|---:|---:|---:|---:|---:|"]
    body = [_line(texts) for texts in rows(report)]
    said = [f"- {sentence}" for sentence in report.verdict]
    how = [*summary(report), f"Measured {report.at}."]
    return "\n".join(["## draftd bench", "", "\n".join(how), "", *head, *body, "", *said, ""])


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"
