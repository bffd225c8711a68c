"""A check that fails or raises does not stop the others, and all are in the table."""

from __future__ import annotations

from tests.mac_check.results import Check, FailedError, Result, SkippedError, run_all, table


def fails(_: int) -> str:
    raise FailedError("too\nslow")


def skips(_: int) -> str:
    raise SkippedError("no GPU")


def raises(_: int) -> str:
    raise KeyError("pid")


def test_each_check_is_done_whatever_became_of_the_others() -> None:
    checks = [Check(look.__name__, look) for look in (fails, skips, raises)]
    results = [*run_all([*checks, Check("counts", str)], 3)]
    assert [(result.name, result.outcome, result.text) for result in results] == [
        ("fails", "failed", "too slow"),
        ("skips", "skipped", "no GPU"),
        ("raises", "failed", "KeyError: 'pid'"),
        ("counts", "ok", "3"),
    ]


def test_the_table_can_be_pasted() -> None:
    text = table([Result("a", "ok", "1 | 2", 0.26)])
    assert text.splitlines()[2:] == ["| a | ok | 1 / 2 | 0.3 s |"]
