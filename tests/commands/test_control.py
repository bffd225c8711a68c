"""What 'draftd start' and 'draftd restart' say when the worker does not get ready."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from draftd.commands import control
from draftd.errors import DraftdError

REASON = "it does not fit in memory: it needs 9.0 GB"


def row(state: str, since: float, pid: int | None = None) -> dict[str, Any]:
    return {"name": "a", "state": state, "since": since, "pid": pid, "reason": REASON}


class Daemon:
    """Shows these rows, one at each request, and takes every order."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self._rows: Iterator[dict[str, Any]] = iter(rows)

    def status(self) -> dict[str, Any]:
        return {"workers": [next(self._rows)]}

    def order(self, name: str, order: str) -> dict[str, Any]:
        return {"shares_with": []}


@pytest.mark.fault(106)
@pytest.mark.parametrize(
    ("verb", "before"), [(control.start, row("asleep", 1.0)), (control.restart, row("ready", 1.0, 7))]
)
def test_an_order_ends_with_the_reason_when_there_is_no_room(
    verb: Any, before: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(before, before, row("waiting", 2.0), row("asleep", 3.0))
    monkeypatch.setattr(control, "make_client", lambda state_dir: daemon)
    monkeypatch.setattr(control, "resolve", lambda client, word, own: word)
    with pytest.raises(DraftdError, match=f"^a is asleep, and not ready: {REASON}$"):
        verb("a")
