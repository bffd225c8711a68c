"""How drafts are asked for: the length and the drafters that a client names, and what an engine is told."""

import json
from typing import Any

import pytest

from draftd.profiles import Profile
from draftd.protocol import AUTO_DRAFT, DRAFT_HEADER, DRAFTERS_HEADER
from tests.web.forwarded import DRAFTING, FOREIGN, PLAIN, TEXT, forward, sent
from tests.web.given import profile, refused

AUTO = profile(draft_model="org/draft", num_draft_tokens="auto", max_draft_tokens=6)


@pytest.mark.parametrize("length", [0, 1, 64])
def test_the_draft_length_is_forwarded_only_to_a_worker_that_drafts(length: int) -> None:
    assert sent({"num_draft_tokens": length}, to=DRAFTING)["num_draft_tokens"] == length
    assert "num_draft_tokens" not in sent({"num_draft_tokens": length}, to=PLAIN)


@pytest.mark.parametrize(
    ("profile", "asked", "longest", "auto"),
    [
        (AUTO, {}, 6, True),
        (AUTO, {"temperature": 0.7}, 6, True),
        (AUTO, {"num_draft_tokens": 3}, 3, False),
        (AUTO, {"seed": 1, "temperature": 0.7}, 6, True),  # the engine gives the same text for the same seed
        (AUTO, {"seed": 1, "temperature": 0}, 6, True),
        (DRAFTING, {"num_draft_tokens": "auto"}, 8, True),
        (DRAFTING, {"num_draft_tokens": "auto", "seed": 1, "temperature": 1}, 8, True),
        (PLAIN, {"num_draft_tokens": "auto"}, None, False),
    ],
)
def test_a_draft_length_that_tunes_itself_is_told_as_the_longest(
    profile: Profile, asked: dict[str, Any], longest: int | None, auto: bool
) -> None:
    made = forward(asked, to=profile)
    assert json.loads(made.payload).get("num_draft_tokens") == longest
    assert made.headers.get(DRAFT_HEADER) == (AUTO_DRAFT if auto else None)


@pytest.mark.parametrize(
    ("profile", "asked", "told"),
    [
        (DRAFTING, {}, None),
        (DRAFTING, {"drafters": None}, None),
        (DRAFTING, {"drafters": ["model", "lookup"]}, "model,lookup"),
        (DRAFTING, {"drafters": ["lookup"]}, "lookup"),
        (DRAFTING, {"drafters": []}, ""),
        (DRAFTING.model_copy(update={"drafters": ("model",)}), {}, "model"),
        (PLAIN, {}, None),
        (PLAIN, {"drafters": ["lookup"]}, "lookup"),
        (PLAIN.model_copy(update={"drafters": ("lookup",)}), {}, "lookup"),
        (PLAIN.model_copy(update={"drafters": ("lookup",)}), {"drafters": []}, ""),
        (PLAIN.model_copy(update={"drafters": ("lookup",)}), {"num_draft_tokens": 0}, ""),
        (PLAIN.model_copy(update={"drafters": ("lookup",)}), {"num_draft_tokens": 5}, "lookup"),
        (PLAIN, {"drafters": ["lookup"], "num_draft_tokens": 0}, ""),
        (PLAIN, {"num_draft_tokens": 0}, None),
    ],
)
def test_the_engine_is_told_what_may_draft_if_somebody_says_so(
    profile: Profile, asked: dict[str, Any], told: str | None
) -> None:
    made = forward(asked, to=profile)
    assert made.headers.get(DRAFTERS_HEADER) == told
    assert "drafters" not in json.loads(made.payload)


def test_who_drafted_what_is_told_by_our_engine_alone() -> None:
    assert sent({"return_drafters": True})["return_drafters"] is True
    assert "return_drafters" not in sent({"return_drafters": False}, to=FOREIGN)
    with refused(400, param="return_drafters", says="does not say what it drafted"):
        forward({"return_drafters": True}, to=FOREIGN)
    with refused(400, param="return_drafters", says="belongs to /v1/chat/completions"):
        forward({"return_drafters": True}, TEXT)


@pytest.mark.parametrize(
    ("profile", "drafters", "param"),
    [
        (PLAIN, ["model"], "drafters"),
        (DRAFTING, ["lookup", "eagle"], "drafters[1]"),
        (DRAFTING, "model", "drafters"),
        (FOREIGN, ["lookup"], "drafters"),
    ],
)
def test_drafters_that_there_are_not_are_refused(profile: Profile, drafters: Any, param: str) -> None:
    with refused(400, param=param):
        forward({"drafters": drafters}, to=profile)


@pytest.mark.parametrize("asked", [{}, {"num_draft_tokens": None}])
def test_a_request_that_names_no_draft_length_gets_the_profile_s(asked: dict[str, Any]) -> None:
    assert sent(asked, to=DRAFTING)["num_draft_tokens"] == DRAFTING.draft_length
    assert "num_draft_tokens" not in sent(asked, to=PLAIN)
    assert "num_draft_tokens" not in sent(asked, to=FOREIGN)
