"""Small checks that do not get in each other's way, and the table of their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
Outcome = Literal["ok", "failed", "skipped"]


class SkippedError(Exception):
    """The check has nothing to look at here. The text says why."""


class FailedError(Exception):
    """The check found something wrong. The text says what."""


@dataclass(frozen=True, slots=True)
class Check(Generic[T]):
    """`look` returns a figure for the table, or raises SkippedError, FailedError or whatever happens to it."""

    name: str
    look: Callable[[T], str]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a check. `text` is its figure, what was wrong, or why it was skipped; it took `seconds`."""

    name: str
    outcome: Outcome
    text: str
    seconds: float


def run_all(checks: Iterable[Check[T]], subject: T) -> Iterator[Result]:
    """Run each check, whatever the earlier ones did."""
    for check in checks:
        began = time.monotonic()
        outcome, text = _attempt(check, subject)
        yield Result(check.name, outcome, " ".join(text.split()), time.monotonic() - began)


def _attempt(check: Check[T], subject: T) -> tuple[Outcome, str]:
    try:
        return "ok", check.look(subject)
    except SkippedError as reason:
        return "skipped", str(reason)
    except FailedError as found:
        return "failed", str(found)
    except Exception as error:
        return "failed", f"{type(error).__name__}: {error}"


def table(results: Iterable[Result]) -> str:
    """The results as Markdown."""
    rows = [
        f"| {result.name} | {result.outcome} | {result.text.replace('|', '/')} | {result.seconds:.1f} s |"
        for result in results
    ]
    return "\n".join(["| check | result | figure | took |", "|---|---|---|---|", *rows])
