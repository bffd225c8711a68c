"""What a model said comes back unchanged with the next request, in any dialect; and a stream's events are the same
whether its chunks are parsed or only their texts are cut out.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from draftd.web.answer_stream import DONE, to_event
from draftd.web.client import JSON, ClientExchange, RequestHead
from draftd.web.dialects import messages_request, responses_request
from draftd.web.dialects.messages_answer import MessageAnswer, whole_message
from draftd.web.dialects.responses_answer import ResponseAnswer, whole_response
from draftd.web.router import Dialect
from draftd.web.translation import TRANSLATED

ID = "0" * 32
TOOLS = [{"type": "custom", "name": "patch"}, {"type": "function", "name": "look"}]
REPEATED = {"model": "m", "tools": TOOLS}
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | words
objects = st.dictionaries(
    words, scalars | st.lists(scalars, max_size=2) | st.dictionaries(words, scalars, max_size=2), max_size=3
)


@st.composite
def turns(draw: Any, names: tuple[str, ...] = ("look", "list")) -> dict[str, Any]:
    """A message of the model's, in the form of a chat."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(words)}
    if thoughts := draw(words):
        message["reasoning_content"] = thoughts
    calls = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": draw(st.sampled_from(names)), "arguments": json.dumps(draw(objects))},
        }
        for number in range(draw(st.integers(0, 2)))
    ]
    return message | ({"tool_calls": calls} if calls else {})


def completion(message: dict[str, Any]) -> dict[str, Any]:
    """A worker's answer with this message, with the reasoning under another name."""
    told = {**message, "content": message["content"] or None, "reasoning": message.get("reasoning_content")}
    choice = {
        "index": 0,
        "message": told,
        "finish_reason": "tool_calls" if "tool_calls" in message else "stop",
    }
    return {
        "id": "chatcmpl-1",
        "model": "m",
        "choices": [choice],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }


def read(message: dict[str, Any]) -> dict[str, Any]:
    """A message with the arguments of its calls as the objects that they are."""
    calls = [
        {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
        for call in message.get("tool_calls", [])
    ]
    return {**message, "tool_calls": calls}


@given(st.lists(turns(), min_size=1, max_size=3))
def test_a_conversation_in_anthropics_form_comes_back_as_it_was(said: list[dict[str, Any]]) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
    expected: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
    for message in said:
        answered = whole_message(completion(message), MessageAnswer(ID))
        messages.append({"role": "assistant", "content": answered["content"]})
        expected.append(message)
        results = [(call["id"], f"done {call['id']}") for call in message.get("tool_calls", [])]
        blocks = [{"type": "tool_result", "tool_use_id": name, "content": text} for name, text in results]
        messages.append({"role": "user", "content": [*blocks, {"type": "text", "text": "And?"}]})
        expected += [{"role": "tool", "tool_call_id": name, "content": text} for name, text in results]
        expected.append({"role": "user", "content": "And?"})
    made = messages_request.chat_request({"model": "m", "max_tokens": 5, "messages": messages})["messages"]
    assert list(map(read, made)) == list(map(read, expected))


@given(st.lists(turns(), min_size=1, max_size=3))
def test_a_conversation_in_the_form_of_responses_comes_back_as_it_was(said: list[dict[str, Any]]) -> None:
    items: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
    expected: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
    for message in said:
        assume(len(message) > 2 or message["content"])  # of an answer with nothing in it there is no item
        items += whole_response(completion(message), ResponseAnswer(ID, 1, REPEATED))["output"]
        expected.append(message)
        for call in message.get("tool_calls", []):
            items.append({"type": "function_call_output", "call_id": call["id"], "output": "done"})
            expected.append({"role": "tool", "tool_call_id": call["id"], "content": "done"})
        items.append({"role": "user", "content": "And?"})
        expected.append({"role": "user", "content": "And?"})
    made = responses_request.chat_request({"model": "m", "input": items})["messages"]
    assert list(map(read, made)) == list(map(read, expected))


@given(words)
def test_so_does_the_text_of_a_custom_tool(text: str) -> None:
    function = {"name": "patch", "arguments": json.dumps({"input": text})}
    message = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c", "type": "function", "function": function}],
    }
    response = whole_response(completion(message), ResponseAnswer(ID, 1, REPEATED))
    assert response["output"][0] | {"type": "custom_tool_call", "input": text} == response["output"][0]
    made = responses_request.chat_request({"model": "m", "input": response["output"]})["messages"]
    assert list(map(read, made)) == [read(message)]


class Kept(ClientExchange):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(RequestHead("POST", "/", "/", {}, 0))
        self.headers["x-request-id"] = ID
        self.sent = b""

    @property
    def begun(self) -> bool:
        return bool(self.sent)

    async def body(self) -> bytes:
        return b""

    async def answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        self.sent += body

    async def write(self, data: bytes) -> None:
        self.sent += data

    async def finish(self, data: bytes) -> None:
        self.sent += data

    def cut(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError


def called(index: int) -> dict[str, Any]:
    return {
        "tool_calls": [{"index": index, "id": f"c{index}", "function": {"name": "look", "arguments": "{}"}}]
    }


deltas = st.one_of(
    st.builds(lambda text: {"content": text}, words),
    st.builds(lambda text: {"content": text}, st.text('ab"\\\n\té', max_size=4)),
    st.builds(lambda text: {"reasoning": text}, words),
    st.builds(lambda text: {"reasoning_content": text, "content": text}, words),
    st.builds(called, st.integers(0, 10**6)),
)


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "chatcmpl-1", "model": "m", "choices": [choice]}


async def sent(dialect: Dialect, chunks: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """The events that a client gets; the chunks come `size` at once."""
    inner = Kept()
    exchange = TRANSLATED[dialect](inner)
    exchange.repeated = REPEATED
    events = [to_event(each) for each in chunks]
    for place in range(0, len(events), size):
        await exchange.write(b"".join(events[place : place + size]))
    await exchange.finish(DONE)
    parts = [event.split(b"\ndata: ") for event in inner.sent.split(b"\n\n")[:-1]]
    found = [(name.removeprefix(b"event: ").decode(), json.loads(data)) for name, data in parts]
    assert all(name == event["type"] for name, event in found)
    return [event for _, event in found]


@given(st.lists(deltas, max_size=12), st.integers(1, 5))
def test_events_are_the_same_whether_chunks_are_parsed_or_not(parts: list[dict[str, Any]], size: int) -> None:
    chunks = [
        *map(chunk, parts),
        chunk({}, "stop"),
        {**chunk({}), "choices": [], "usage": {"prompt_tokens": 3}},
    ]
    dialects: tuple[Dialect, ...] = ("messages", "responses")
    for dialect in dialects:
        answer = MessageAnswer(ID) if dialect == "messages" else ResponseAnswer(ID, 1, REPEATED)
        expected = [event for each in chunks for event in answer.take(each)] + list(answer.finish())
        made = asyncio.run(sent(dialect, chunks, size))
        for one in (*made, *expected):
            one.get("response", {}).pop("created_at", None)
        assert made == json.loads(json.dumps(expected))
