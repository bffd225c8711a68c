"""Where an answer ends, however its text came in pieces."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.engine.answers.stop_texts import StopTexts, checked
from draftd.protocol import MAX_STOP_LENGTH, MAX_STOP_TEXTS


def fed(stops: list[str], pieces: list[str]) -> tuple[list[str], bool]:
    """What each piece gave, and the end; and whether a stop text was met."""
    text = StopTexts(stops)
    return [*(text.feed(piece) for piece in pieces), text.finish()], text.stopped


@pytest.mark.parametrize(
    ("stops", "pieces", "given", "stopped"),
    [
        (["small"], ["one ", "small", " daemon"], ["one ", "", "", ""], True),
        (["small"], ["one sm", "a", "ll daemon"], ["one ", "", "", ""], True),
        (["small"], ["one sm", "ile"], ["one ", "smile", ""], False),
        (["small"], ["one sma"], ["one ", "sma"], False),
        (["aab"], ["aaa", "ab"], ["a", "a", ""], True),  # its beginning overlaps with itself
        (["b", "abc"], ["xab", "c"], ["x", "", ""], True),  # "b" is whole first, "abc" begins first
        (["b", "abc"], ["xab", "d"], ["x", "a", ""], True),
        (["b", "abc"], ["xab"], ["x", "a"], True),
        ([], ["a", "b"], ["a", "b", ""], False),
    ],
)
def test_a_text_ends_where_a_stop_text_first_stands(
    stops: list[str], pieces: list[str], given: list[str], stopped: bool
) -> None:
    assert fed(stops, pieces) == (given, stopped)


def test_the_one_that_ended_the_text_is_known() -> None:
    for pieces, matched in ((["xab", "c"], "abc"), (["xab", "d"], "b"), (["xa"], None)):
        text = StopTexts(["b", "abc"])
        for piece in pieces:
            text.feed(piece)
        text.finish()
        assert text.matched == matched


few = st.text("ab", max_size=3)


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=4), st.lists(few, max_size=12))
def test_the_pieces_do_not_matter_and_nothing_behind_a_stop_text_is_ever_given(
    stops: list[str], pieces: list[str]
) -> None:
    whole = "".join(pieces)
    cut = min((at for stop in stops if (at := whole.find(stop)) >= 0), default=len(whole))
    parts, stopped = fed(stops, pieces)
    assert "".join(parts) == whole[:cut]
    assert stopped == any(stop in whole for stop in stops)


@pytest.mark.parametrize(
    ("stop", "texts"), [(None, ()), ("END", ("END",)), (["a", "b"], ("a", "b")), ([], ()), ("\n", ("\n",))]
)
def test_a_text_or_a_list_is_taken(stop: Any, texts: tuple[str, ...]) -> None:
    assert checked(stop) == texts


@pytest.mark.parametrize(
    "stop",
    [
        "", ["a", ""], [None], ["a", 5], 5, {"a": 1}, True,
        ["x"] * (MAX_STOP_TEXTS + 1), "x" * (MAX_STOP_LENGTH + 1),
    ],
)  # fmt: skip
def test_what_ends_nothing_or_costs_too_much_is_refused(stop: Any) -> None:
    with pytest.raises(ValueError, match="stop must"):
        checked(stop)
