"""Chunks become the events of OpenAI's responses, which its own types read, and the events make the response."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from draftd.errors import DraftdError, RequestError, WorkerError
from draftd.protocol import CONTEXT_LENGTH_EXCEEDED
from draftd.web.dialects.responses_answer import ResponseAnswer, usage_of, whole_response

PATCH = {"type": "custom", "name": "patch"}
REPEATED = {"model": "m", "tools": [PATCH], "tool_choice": "auto", "parallel_tool_calls": True}
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
DELTAS = {
    "response.output_text.delta": "text",
    "response.reasoning_text.delta": "text",
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
}


@cache
def of_the_package() -> tuple[TypeAdapter[Any], TypeAdapter[Any]]:
    """Readers of an event and of a response. The package takes most of a second, in each process that collects."""
    from openai.types.responses import Response, ResponseStreamEvent

    return TypeAdapter(ResponseStreamEvent), TypeAdapter(Response)


def new() -> ResponseAnswer:
    return ResponseAnswer("5", 1, REPEATED)


def chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def call(index: int, **function: Any) -> dict[str, Any]:
    return {"index": index, "function": function} | ({"id": f"t{index}"} if "name" in function else {})


def events(*chunks: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The events as they are sent, each of which fits its type, and the response."""
    an_event, a_response = of_the_package()
    answer = new()
    sent = [json.dumps(event) for one in chunks for event in answer.take(one)]
    sent += [json.dumps(event) for event in answer.finish()]
    found = [json.loads(event) for event in sent]
    for number, event in enumerate(found):
        an_event.validate_json(sent[number], strict=True)
        assert event["sequence_number"] == number
    a_response.validate_json(json.dumps(answer.response), strict=True)
    return found, answer.response


def joined(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items, as a client puts them together from the pieces; what an item's end says must be the same."""
    items: list[dict[str, Any]] = []
    for event in found:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(items)
            items.append(event["item"])
        elif kind == "response.content_part.added":
            items[-1]["content"].append(event["part"])
        elif kind in DELTAS:
            assert (event["output_index"], event["item_id"]) == (len(items) - 1, items[-1]["id"])
            holder = items[-1]["content"][event["content_index"]] if "content_index" in event else items[-1]
            holder[DELTAS[kind]] += event["delta"]
        elif kind.endswith("_text.done"):
            assert event["text"] == items[-1]["content"][0]["text"]
        elif kind == "response.output_item.done":
            items[-1]["status"] = event["item"]["status"]
            assert event["item"] == items[-1]
    return items


def test_thoughts_text_and_calls_are_items_in_their_order() -> None:
    found, response = events(
        chunk(role="assistant", reasoning="h"),
        chunk(reasoning="m"),
        chunk(content="Let "),
        chunk(content="me"),
        chunk(tool_calls=[call(0, name="f", arguments='{"a"')]),
        chunk(tool_calls=[call(0, arguments=": 1}"), call(1, name="patch", arguments='{"inp')]),
        chunk(tool_calls=[call(1, arguments='ut": "+ a\\n"}')]),
        chunk("tool_calls"),
        {"choices": [], "usage": USAGE},
    )
    thought, message, called, patch = response["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert message["content"] == [
        {"type": "output_text", "text": "Let me", "annotations": [], "logprobs": []}
    ]
    assert (called["type"], called["call_id"], called["name"], called["arguments"]) == (
        "function_call",
        "t0",
        "f",
        '{"a": 1}',
    )
    assert (patch["type"], patch["call_id"], patch["name"], patch["input"]) == (
        "custom_tool_call",
        "t1",
        "patch",
        "+ a\n",
    )
    assert {item["status"] for item in response["output"]} == {"completed"}
    assert len({item["id"] for item in response["output"]}) == 4
    assert joined(found) == response["output"]
    kinds = [event["type"] for event in found]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-2:] == ["response.output_item.done", "response.completed"]
    assert found[0]["response"]["output"] == []
    assert found[-1]["response"] == response
    assert (response["id"], response["model"], response["status"]) == ("resp_5", "m", "completed")


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [
        ("stop", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_why_it_ended(reason: str, status: str, why: dict[str, str] | None) -> None:
    found, response = events(chunk(content="a"), chunk(reason))
    assert (response["status"], response["incomplete_details"]) == (status, why)
    assert response["output"][-1]["status"] == status
    assert found[-1]["type"] == f"response.{status}"


def test_an_empty_answer_has_no_item() -> None:
    found, response = events(chunk("stop", role="assistant"))
    assert [event["type"] for event in found] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]
    assert response["output"] == []


def test_tokens_of_the_cache_and_of_thoughts_are_told() -> None:
    assert usage_of(USAGE) == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 11,
    }
    assert usage_of({"prompt_tokens": 3, "completion_tokens": None})["total_tokens"] == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DraftdError("x"), "server_error"),
        (WorkerError("x", status=429), "rate_limit_exceeded"),
        (RequestError(400, "x"), "invalid_prompt"),
        (RequestError(400, "x", code=CONTEXT_LENGTH_EXCEEDED), CONTEXT_LENGTH_EXCEEDED),
    ],
)
@pytest.mark.parametrize("begun", [True, False])
def test_an_answer_that_breaks_off_keeps_what_has_come(error: DraftdError, code: str, begun: bool) -> None:
    answer = new()
    found = [*answer.take(chunk(content="half")), *answer.fail(error)] if begun else [*answer.fail(error)]
    assert [found[0]["type"], found[-1]["type"]] == ["response.created", "response.failed"]
    response = found[-1]["response"]
    assert (response["status"], response["error"]) == ("failed", {"code": code, "message": "x"})
    assert [item["status"] for item in response["output"]] == ["incomplete"] * begun


@pytest.mark.parametrize("arguments", ["{", '{"other": "x"}', '["x"]', '{"input": 5}'])
def test_arguments_without_the_text_of_a_custom_tool_are_passed_on(arguments: str) -> None:
    _, response = events(chunk(tool_calls=[call(0, name="patch", arguments=arguments)]), chunk("tool_calls"))
    assert response["output"][0]["input"] == arguments


def test_that_it_goes_on_can_be_said_at_any_time() -> None:
    answer = new()
    found = [
        *answer.begin(),
        *answer.begin(),
        *answer.take(chunk(content="a")),
        *answer.begin(),
        *answer.finish(),
    ]
    kinds = [event["type"] for event in found]
    assert kinds.count("response.created") == 1
    assert kinds.count("response.in_progress") == 3
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "a"


deltas = st.one_of(
    st.builds(lambda words: {"content": words}, st.text(max_size=4)),
    st.builds(lambda words: {"reasoning_content": words}, st.text(max_size=4)),
    st.builds(
        lambda index, name: {"tool_calls": [call(index, name=name, arguments='{"input": "x"}')]},
        st.integers(5, 10**6),
        st.sampled_from(["f", "patch"]),
    ),
)


@given(st.lists(deltas, max_size=8, unique_by=str), st.sampled_from(["stop", "length"]))
def test_the_joined_stream_is_the_response(parts: list[dict[str, Any]], reason: str) -> None:
    found, response = events(*(chunk(**part) for part in parts), chunk(reason))
    assert joined(found) == response["output"] == found[-1]["response"]["output"]


@given(st.text(max_size=5), st.text(max_size=5), st.lists(st.sampled_from(["f", "patch"]), max_size=3))
def test_a_whole_answer_is_what_its_stream_makes(thoughts: str, words: str, names: list[str]) -> None:
    calls = [call(index, name=name, arguments='{"input": "x"}') for index, name in enumerate(names)]
    message = {"reasoning": thoughts, "content": words, "tool_calls": calls}
    completion = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE}
    found, response = events(chunk("stop", **message), {"choices": [], "usage": USAGE})
    assert whole_response(completion, new()) == response
    assert joined(found) == response["output"]
