"""Answers and chunks as OpenAI's SDK reads them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from draftd.engine.answers.answer_forms import AnswerForm, error_body, usage_of
from draftd.engine.answers.answer_text import Part
from draftd.engine.answers.logprobs import Chosen, TokenNames

pytestmark = pytest.mark.real

HEAD = {"id": "x", "system_fingerprint": "f", "model": "m", "created": 1}
NAMES = TokenNames(SimpleNamespace(detokenizer=SimpleNamespace(tokenmap=["a", "b"]), decode=None))
USAGE = usage_of(3, 2, 1)


def call(name: str) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}}


def full() -> Part:
    return Part(
        "ab", "hm", [call("f"), call("g")], [(0, Chosen(0, -1.0, ((0, -1.0),))), (1, Chosen(1, -2.0))]
    )


def test_a_chat_in_one_piece() -> None:
    from openai.types.chat import ChatCompletion

    told = AnswerForm(HEAD, True, NAMES).whole(full(), "tool_calls", USAGE)
    choice = ChatCompletion.model_validate(told, strict=True).choices[0]
    assert choice.message.content == "ab"
    assert [each.id for each in choice.message.tool_calls or []] == ["f", "g"]
    assert choice.logprobs is not None
    assert [entry.token for entry in choice.logprobs.content or []] == ["a", "b"]
    assert told["choices"][0]["message"]["reasoning"] == "hm"


def test_a_stream_of_a_chat_numbers_its_calls() -> None:
    from openai.types.chat import ChatCompletionChunk

    form = AnswerForm(HEAD, True, NAMES)
    chunks = [form.chunk(full(), None), form.chunk(Part(tool_calls=[call("h")]), "tool_calls")]
    chunks.append(form.usage_chunk(USAGE))
    read = [ChatCompletionChunk.model_validate(chunk) for chunk in chunks]
    assert [c.index for chunk in read[:2] for c in chunk.choices[0].delta.tool_calls or []] == [0, 1, 2]
    assert read[0].choices[0].logprobs is not None
    assert "logprobs" not in chunks[1]["choices"][0]
    assert (read[2].choices, read[2].usage and read[2].usage.total_tokens) == ([], 5)


def test_a_text_has_the_form_of_the_older_endpoint() -> None:
    from openai.types import Completion

    form = AnswerForm(HEAD, False, NAMES)
    for told in (form.whole(full(), "stop", USAGE), form.chunk(full(), "stop")):
        choice = Completion.model_validate(told).choices[0]
        assert choice.text == "ab"
        assert choice.logprobs is not None
        assert choice.logprobs.tokens == ["a", "b"]
        assert choice.logprobs.text_offset == [0, 1]
        assert told["object"] == "text_completion"


def test_log_probabilities_are_null_where_nobody_asked_for_them() -> None:
    assert AnswerForm(HEAD, True, None).whole(full(), "stop", USAGE)["choices"][0]["logprobs"] is None


def test_an_answer_without_text_has_no_content() -> None:
    told = AnswerForm(HEAD, True, None).whole(Part(), "stop", USAGE)
    assert told["choices"][0]["message"] == {"role": "assistant", "content": None}


def test_usage_tells_of_the_cache_if_it_is_known() -> None:
    assert USAGE["prompt_tokens_details"] == {"cached_tokens": 1}
    assert "prompt_tokens_details" not in usage_of(3, 2, -1)


def test_an_error_has_openais_fields() -> None:
    assert error_body("why", param="stop")["error"] == {"message": "why", "code": None, "param": "stop"}
