"""Chunks become Anthropic's events, and the events make the message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.web.dialects.messages_answer import MessageAnswer, usage_of

USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}


def chunk(reason: str | None = None, *, stop: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason} | ({"stop_reason": stop} if stop else {})
    return {"id": "chatcmpl-5", "model": "m", "choices": [choice]}


def call(index: int, **function: Any) -> dict[str, Any]:
    return {"index": index, "function": function} | ({"id": f"t{index}"} if "name" in function else {})


def events(*chunks: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    answer = MessageAnswer("5")
    found = [event for one in chunks for event in answer.take(one)]
    return [json.loads(json.dumps(event)) for event in [*found, *answer.finish()]], answer.message


def joined(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks, as a client puts them together."""
    blocks: list[dict[str, Any]] = []
    for event in found:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(event["content_block"] | {"json": ""})
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            delta = event["delta"]
            kind = {"text_delta": "text", "thinking_delta": "thinking"}.get(delta["type"])
            if kind:
                blocks[-1][kind] += delta[kind]
            else:
                blocks[-1]["json"] += delta["partial_json"]
    for block in blocks:
        arguments = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(arguments or "{}")
    return blocks


def test_thoughts_text_and_calls_are_blocks_in_their_order() -> None:
    found, message = events(
        chunk(role="assistant", reasoning="h"),
        chunk(reasoning="m"),
        chunk(content="Let "),
        chunk(content="me"),
        chunk(tool_calls=[call(0, name="f", arguments='{"a"')]),
        chunk(tool_calls=[call(0, arguments=": 1}"), call(1, name="g")]),
        chunk("tool_calls"),
        {"id": "chatcmpl-5", "model": "m", "choices": [], "usage": USAGE},
    )
    assert message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "Let me"},
        {"type": "tool_use", "id": "t0", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "t1", "name": "g", "input": {}},
    ]
    assert joined(found) == message["content"]
    kinds = [event["type"] for event in found]
    assert kinds[0] == "message_start"
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 4
    assert found[0]["message"]["content"] == []
    assert (message["id"], message["model"], message["role"]) == ("msg_5", "m", "assistant")
    assert found[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert found[-2]["usage"] == message["usage"]


@pytest.mark.parametrize(
    ("reason", "stop", "told"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", "END", ("stop_sequence", "END")),
        ("length", None, ("max_tokens", None)),
        ("tool_calls", None, ("tool_use", None)),
    ],
)
def test_why_it_ended(reason: str, stop: str | None, told: tuple[str, str | None]) -> None:
    _, message = events(chunk(content="a"), chunk(reason, stop=stop))
    assert (message["stop_reason"], message["stop_sequence"]) == told


def test_an_empty_answer_has_no_block() -> None:
    found, message = events(chunk("stop", role="assistant"))
    assert [event["type"] for event in found] == ["message_start", "message_delta", "message_stop"]
    assert message["content"] == []


def test_tokens_out_of_the_cache_count_apart() -> None:
    assert usage_of(USAGE) == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 2,
    }
    assert usage_of({"prompt_tokens": 3, "completion_tokens": None})["input_tokens"] == 3


@pytest.mark.parametrize(
    "arguments",
    ["{", "[1]", "5", pytest.param("[" * 100_000, id="deep"), '{"a": NaN}', '{"a": -Infinity}'],
)
def test_arguments_that_are_no_object_are_kept_in_one(arguments: str) -> None:
    _, message = events(chunk(tool_calls=[call(0, name="f", arguments=arguments)]), chunk("tool_calls"))
    assert list(message["content"][0]["input"]) == ["arguments"]


deltas = st.one_of(
    st.builds(lambda words: {"content": words}, st.text(max_size=4)),
    st.builds(lambda words: {"reasoning_content": words}, st.text(max_size=4)),
    st.builds(
        lambda index: {"tool_calls": [call(index, name="f", arguments='{"a": 1}')]}, st.integers(5, 10**6)
    ),
)


@given(st.lists(deltas, max_size=8, unique_by=str))
def test_the_joined_stream_is_the_message(parts: list[dict[str, Any]]) -> None:
    found, message = events(*(chunk(**part) for part in parts), chunk("stop"))
    assert joined(found) == message["content"]
