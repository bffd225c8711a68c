"""smoke: which model is asked, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from draftd.errors import DraftdError
from draftd.ops.generation import Drafted, Generation
from draftd.ops.smoke import (
    ChatRequest,
    SmokeResult,
    choose,
    describe_acceptance,
    describe_model,
    honest_drafters,
)

ROW = {
    "model": "big",
    "draft_model": "small",
    "drafters": ["lookup", "model"],
    "draft_refusal": None,
    "num_draft_tokens": 5,
    "auto_draft": False,
    "state": "ready",
    "port": 8001,
}
PLAIN = ROW | {"num_draft_tokens": 0, "draft_model": None, "drafters": [], "state": "stopped", "port": None}
LOOKUP = ROW | {"num_draft_tokens": 0, "draft_model": None, "drafters": ["lookup"]}
OLD = {
    key: value for key, value in ROW.items() if key not in {"drafters", "draft_refusal"}
}  # of draftd 0.1.0


@pytest.mark.parametrize(
    ("word", "models", "chosen"),
    [
        ("", ["only"], "only"),
        ("", ["one", "two"], ""),  # naming one could make mlx_lm.server load it
        ("", [], ""),
        ("", None, ""),
        ("fast", ["a-fast", "a-max"], "a-fast"),
        ("a", ["a", "a-max"], "a"),
        ("unlisted", None, "unlisted"),
    ],
)
def test_the_model_that_is_asked(word: str, models: list[str] | None, chosen: str) -> None:
    assert choose(word, models) == chosen
    assert ChatRequest(chosen, "?", 5, 0.0).body("hi", 5).get("model", "") == chosen


@pytest.mark.parametrize(
    ("word", "models", "message"),
    [
        ("a", ["a-fast", "a-max", "b"], "'a' fits several models of the server; there are: a-fast, a-max"),
        ("z", ["a-fast", "b"], "'z' fits no model of the server; there are: a-fast, b"),
        ("z", [], "'z' fits no model of the server; there are: none"),
    ],
)
def test_a_word_that_names_no_one_model_is_refused(word: str, models: list[str], message: str) -> None:
    with pytest.raises(DraftdError) as refused:
        choose(word, models)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("models", "name", "row", "text"),
    [
        (["p"], "p", ROW, "p: big, drafted by lookup and small (5 tokens); worker ready on port 8001"),
        (["p"], "p", LOOKUP, "p: big, drafted by lookup; worker ready on port 8001"),
        (["p"], "p", OLD, "p: big, drafted by small (5 tokens); worker ready on port 8001"),
        (["p"], "p", PLAIN, "p: big, no drafting; worker stopped on port –"),
        (["p"], "p", None, "p"),
        (["p", "q"], "", None, "the server’s own choice (2 listed: p, q)"),
        (None, "p", None, "p (it lists no models)"),
    ],
)
def test_what_is_said_of_the_model(
    models: list[str] | None, name: str, row: dict[str, Any] | None, text: str
) -> None:
    assert describe_model(models, name, row) == text


@pytest.mark.parametrize(
    ("drafted", "row", "text"),
    [
        (Drafted(40, 30), ROW, "75% (30 of 40 draft tokens accepted)"),
        (None, None, "unknown: the server does not say"),
        (None, PLAIN, "none: nothing drafts for this profile"),
        (None, LOOKUP, "not measured: a lookup would find the answer of the last test"),
        (None, ROW | {"auto_draft": True}, "none: by the times of its rounds, no draft was worth it"),
        (None, ROW | {"draft_refusal": "it keeps Odd"}, "none: it keeps Odd"),
        (None, OLD, "unknown: the worker reported no drafting ('draftd logs' may say why)"),
        (None, ROW, "unknown: the worker reported no drafting ('draftd logs' may say why)"),
    ],
)
def test_what_is_said_of_drafting(drafted: Drafted | None, row: dict[str, Any] | None, text: str) -> None:
    timings = {"draft_n": drafted.proposed, "draft_n_accepted": drafted.accepted} if drafted else {}
    made = Generation("text", 10, True, 0.1, 1.0, "stop", timings)
    assert describe_acceptance(SmokeResult(made, row)) == text


@pytest.mark.parametrize(
    ("row", "drafters"),
    [
        (None, None),
        (PLAIN, None),
        (OLD, None),
        (LOOKUP, ()),
        (ROW, ("model",)),
        (ROW | {"drafters": ["model"]}, ("model",)),
    ],
)
def test_no_answer_of_an_earlier_test_is_looked_up(
    row: dict[str, Any] | None, drafters: tuple[str, ...] | None
) -> None:
    assert honest_drafters(row) == drafters
    body = ChatRequest("m", "?", 5, 0.0, drafters).body("hi", 5)
    assert body.get("drafters") == (None if drafters is None else list(drafters))
