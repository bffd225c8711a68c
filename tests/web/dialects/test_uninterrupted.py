"""Calls that a server writes side by side come one after the other, each of them whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.web.dialects.messages_answer import MessageAnswer
from draftd.web.dialects.responses_answer import ResponseAnswer
from draftd.web.dialects.uninterrupted import Part, Uninterrupted


def begins(index: int, arguments: str = "") -> dict[str, Any]:
    return {"index": index, "id": f"c{index}", "function": {"name": f"f{index}", "arguments": arguments}}


def goes_on(index: int, arguments: str) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments}}


def told(*deltas: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What is told as it comes, and what only at the end."""
    order = Uninterrupted()
    return [word(part) for delta in deltas for part in order.take(delta)], [word(one) for one in order.rest()]


def word(part: Part) -> str:
    kind, what = part
    return f"{what['index']}:{what['function']['arguments']}" if kind == "call" else what


def test_a_call_that_interrupts_another_waits_until_that_is_whole() -> None:
    side_by_side: list[dict[str, Any]] = [
        {"tool_calls": [begins(0), begins(1)]},
        {"tool_calls": [goes_on(0, '{"a":'), goes_on(1, '{"b":')]},
        {"tool_calls": [goes_on(0, "1}"), goes_on(1, "2}")]},
        {"content": "done"},
    ]
    assert told(*side_by_side) == (["0:", '0:{"a":', "0:1}", "1:", '1:{"b":', "1:2}", "done"], [])


def test_calls_one_after_the_other_are_told_as_they_come() -> None:
    deltas = [{"tool_calls": [begins(index, "{}")]} for index in (0, 1)]
    order = Uninterrupted()
    assert [[word(part) for part in order.take(delta)] for delta in deltas] == [["0:{}"], ["1:{}"]]


def test_what_a_call_without_arguments_holds_up_comes_at_the_end() -> None:
    assert told({"tool_calls": [begins(0)]}, {"tool_calls": [begins(1)]}, {"refusal": "no"}) == (
        ["0:"],
        ["1:", "no"],
    )


@given(st.permutations([0, 0, 0, 1, 1, 1, 2, 2, None]))
@pytest.mark.fault(172)
def test_however_they_are_mixed_each_dialect_has_whole_calls(order: list[int | None]) -> None:
    pieces = {
        index: iter((begins(index), goes_on(index, '{"a": '), goes_on(index, "1}"))) for index in range(3)
    }
    pieces[2] = iter((begins(2), goes_on(2, '{"a": 1}')))
    deltas = [{"content": "x"} if index is None else {"tool_calls": [next(pieces[index])]} for index in order]
    chunks = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    messages = MessageAnswer("5")
    for chunk in chunks:
        for event in messages.take(chunk):
            json.dumps(event)
    list(messages.finish())
    blocks = {block["id"]: (block["name"], block["input"]) for block in of_calls(messages.message["content"])}
    assert blocks == {f"c{index}": (f"f{index}", {"a": 1}) for index in range(3)}
    responses = ResponseAnswer("5", 1, {"tools": []})
    for chunk in chunks:
        list(responses.take(chunk))
    list(responses.finish())
    items = of_calls(responses.response["output"])
    assert {one["call_id"]: (one["name"], one["arguments"]) for one in items} == {
        f"c{index}": (f"f{index}", '{"a": 1}') for index in range(3)
    }


def of_calls(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for part in parts if part["type"] in ("tool_use", "function_call")]
