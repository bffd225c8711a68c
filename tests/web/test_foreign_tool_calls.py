"""Tool calls of foreign servers: kept apart and joined, however they are numbered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.harness import Served
from tests.web.foreign import DONE, HEAD, both, events, in_one_piece, whole

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.fault(65)]


ROME, OSLO = '{"city": "Rome"}', '{"city": "Oslo"}'


def call(arguments: Any, name: str | None = "f", **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **more}


def calling(*chunks: list[Any]) -> list[dict[str, Any]]:
    """A stream with these tool calls in its chunks."""
    made = [{"choices": [{"delta": {"content": None, "tool_calls": calls}}]} for calls in chunks]
    return [*made, {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}]


# What was meant is always the same: f(Rome) and f(Oslo).
CALLS: dict[str, list[list[Any]]] = {
    "as promised": [[call("", index=0, id="a")], [call(ROME, None, index=0)], [call(OSLO, index=1, id="b")]],
    "equal indexes": [[call(ROME, index=0, id="a")], [call(OSLO, index=0, id="b")]],
    "equal indexes in one chunk": [[call(ROME, index=0, id="a"), call(OSLO, index=0, id="b")]],
    "equal indexes, no ids": [[call(ROME, index=0)], [call(OSLO, index=0)]],
    "no indexes": [[call(ROME, id="a"), call(OSLO, id="b")]],
    "no indexes, no ids": [[call(ROME)], [call(OSLO)]],
    "null indexes, empty ids": [[call(ROME, index=None, id="")], [call(OSLO, index=None, id="")]],
    "equal ids": [[call(ROME, index=0, id="a")], [call(OSLO, index=1, id="a")]],
    "equal ids and indexes": [[call(ROME, index=0, id="a")], [call(OSLO, index=0, id="a")]],
    "indexes as texts": [[call(ROME, index="0", id="a")], [call(OSLO, index="1", id="b")]],
    "indexes as fractions": [[call(ROME, index=0.0, id="a")], [call(OSLO, index=1.0, id="b")]],
    "arguments as objects": [[call({"city": "Rome"}, index=0, id="a"), call({"city": "Oslo"}, index=1, id="b")]],
    "objects, and nothing else": [[call({"city": "Rome"}), call({"city": "Oslo"})]],
    "null arguments first": [[call(None, index=0, id="a")], [call(ROME, None, index=0)], [call(OSLO, index=1)]],
    "equal indexes, in pieces": [
        [call('{"city": ', index=0, id="a")], [call('"Rome"}', None, index=0)],
        [call('{"city": ', index=0, id="b")], [call('"Oslo"}', None, index=0)],
    ],
    "no indexes, in pieces": [
        [call('{"city": ', id="a")], [call('"Rome"}', None)], [call('{"city": ', id="b")], [call('"Oslo"}', "")],
    ],
    "mixed up": [
        [call('{"city": ', index=0, id="a"), call('{"city": ', index=1, id="b")],
        [call('"Oslo"}', None, index=1), call('"Rome"}', None, index=0)],
    ],
    "mixed up, known by their ids": [
        [call('{"city": ', id="a"), call('{"city": ', id="b")],
        [call('"Rome"}', None, id="a"), call('"Oslo"}', None, id="b")],
    ],
    "a new id each": [
        [call('{"city": ', index=0, id="a")], [call('"Rome"}', None, index=0, id="c")],
        [call('{"city": ', index=1, id="b")], [call('"Oslo"}', None, index=1, id="d")],
    ],
    "the id and the name each": [
        [call('{"city": ', index=0, id="a")], [call('"Rome"}', index=0, id="a")],
        [call('{"city": ', index=1, id="b")], [call('"Oslo"}', index=1, id="b")],
    ],
    "the name each, no id": [
        [call('{"city": ', index=0)], [call('"Rome"}', index=0)], [call(OSLO, index=1)],
    ],
    "null calls": [[None, call(ROME, index=0, id="a")], [], [call(OSLO, index=1, id="b"), None]],
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
async def test_parallel_calls_are_kept_apart_whatever_their_indexes_and_ids(
    foreign: Served, case: str
) -> None:
    told = await both(foreign, HEAD + events(*calling(*CALLS[case])) + DONE, "chat.completions")
    assert told["finish"] == "tool_calls"
    made = told["content"]["tool_calls"]
    assert [each["function"] for each in made] == [{"name": "f", "arguments": text} for text in (ROME, OSLO)]
    assert len({each["id"] for each in made if each["id"]}) == 2
    assert {each["type"] for each in made} == {"function"}


async def test_different_functions_with_one_index_are_two_calls(foreign: Served) -> None:
    calls = calling([call("", "ping", index=0)], [call("", "pong", index=0)], [call("{}", None, index=0)])
    told = await both(foreign, HEAD + events(*calls) + DONE, "chat.completions")
    made = [each["function"] for each in told["content"]["tool_calls"]]
    assert made == [{"name": "ping", "arguments": ""}, {"name": "pong", "arguments": "{}"}]


async def test_one_call_twice_in_one_chunk_is_two(foreign: Served) -> None:
    calls = calling([call(None), call(None)])
    told = await both(foreign, HEAD + events(*calls) + DONE, "chat.completions")
    assert len(told["content"]["tool_calls"]) == 2


@pytest.mark.parametrize("arguments", [ROME, {"city": "Rome"}])
async def test_calls_in_an_answer_in_one_piece_become_a_stream(foreign: Served, arguments: Any) -> None:
    body = whole("chat.completions")
    calls = [call(arguments, id="a"), call(OSLO, index=0, extra={"kept": True})]
    body["choices"][0] |= {"message": {"content": None, "tool_calls": calls}, "finish_reason": "stop"}
    told = await both(foreign, in_one_piece(json.dumps(body).encode()), "chat.completions")
    assert told["finish"] == "tool_calls"
    first, second = told["content"]["tool_calls"]
    assert json.loads(first["function"]["arguments"]) == {"city": "Rome"}
    assert (second["function"]["arguments"], second["extra"]) == (OSLO, {"kept": True})
