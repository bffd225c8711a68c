"""An effort reaches the template that knows it, and is refused where none would."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from draftd.engine.answers.reasoning_effort import template_arguments
from draftd.engine.refusals import RefusedRequestError

TAUGHT = SimpleNamespace(chat_template="Reasoning: {{ reasoning_effort }}", has_thinking=True)
SWITCHED = SimpleNamespace(chat_template="{% if enable_thinking %}<think>{% endif %}", has_thinking=True)
ALWAYS = SimpleNamespace(chat_template="<think>", has_thinking=True)
NEVER = SimpleNamespace(chat_template="{{ messages }}", has_thinking=False)
PROGRAM = SimpleNamespace(chat_template=None, has_thinking=True)


@pytest.mark.parametrize(
    ("tokenizer", "effort", "given", "got"),
    [
        (TAUGHT, "low", None, {"reasoning_effort": "low"}),
        (TAUGHT, "low", {"a": 1}, {"a": 1, "reasoning_effort": "low"}),
        (TAUGHT, "low", {"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        (TAUGHT, "none", None, {"reasoning_effort": "none"}),
        (SWITCHED, "none", None, {"enable_thinking": False}),
        (NEVER, "none", {"a": 1}, {"a": 1}),
        (NEVER, "none", None, None),
        (ALWAYS, None, {"a": 1}, {"a": 1}),
        (ALWAYS, None, None, None),
    ],
)
def test_a_template_gets_what_it_knows(
    tokenizer: Any, effort: str | None, given: dict[str, Any] | None, got: dict[str, Any] | None
) -> None:
    assert template_arguments(given, effort, tokenizer) == got


@pytest.mark.parametrize(
    ("tokenizer", "effort"),
    [(SWITCHED, "low"), (ALWAYS, "none"), (NEVER, "high"), (PROGRAM, "none"), (PROGRAM, "high")],
)
def test_an_effort_that_no_template_would_heed_is_refused(tokenizer: Any, effort: str) -> None:
    with pytest.raises(RefusedRequestError, match=f"'{effort}'") as caught:
        template_arguments(None, effort, tokenizer)
    assert caught.value.param == "reasoning_effort"
    assert ("only be 'none'" in str(caught.value)) == (tokenizer is SWITCHED)
