"""Which models may be in memory together, by a person's word."""

from __future__ import annotations

import pytest

from draftd.groups import Groups

TOGETHER = Groups(together=(("a", "b"), ("b", "c"), ("d",)))


@pytest.mark.parametrize(
    ("one", "other", "excluded"),
    [("a", "b", False), ("b", "c", False), ("a", "c", True), ("a", "d", True), ("a", "x", False)],
)
def test_those_in_lists_go_with_their_own_lists_and_with_those_in_none(
    one: str, other: str, excluded: bool
) -> None:
    assert TOGETHER.exclude([one], [other]) is excluded
    assert TOGETHER.exclude([other], [one]) is excluded


def test_of_those_apart_one_at_a_time() -> None:
    groups = Groups(apart=(("a", "b", "c"),))
    assert groups.exclude(["a"], ["c"])
    assert not groups.exclude(["a"], ["d"])
    assert groups.exclude(["x", "a"], ["y", "b"]), "a worker that serves one of them"
    assert not Groups().exclude(["a"], ["b"])
