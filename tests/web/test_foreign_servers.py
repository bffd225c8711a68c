"""Servers of others behind a profile's `command`: whatever they do differently, clients get what was promised.

Each case is an answer as some server gives it. It is asked for streamed and in one piece, and what the stream joins
to is what the whole answer says.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from draftd.web.request_body import Endpoint
from tests.harness import QUICK, Answer, Served, chat, serving

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.fault(65)]

SERVER = Path(__file__).parents[1] / "raw_server.py"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ENDPOINTS: tuple[Endpoint, ...] = ("chat.completions", "completions")
Wire = Callable[[Endpoint], bytes]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    command = [sys.executable, str(SERVER), "--port", "{port}"]
    profile = f'model = "raw"\ncommand = {json.dumps(command)}\n{QUICK}'
    async with serving(tmp_path_factory.mktemp("raw"), {"a": profile}) as running:
        yield running


async def asked(served: Served, wire: bytes, endpoint: Endpoint, *, stream: bool, **fields: Any) -> Answer:
    order = base64.b64encode(wire).decode()
    if endpoint == "chat.completions":
        answer = await served.post("/v1/chat/completions", chat(order, model="a", stream=stream, **fields))
    else:
        body = {"model": "a", "prompt": order, "stream": stream, **fields}
        answer = await served.post("/v1/completions", body)
    assert served.row("a")["restarts"] == 0
    return answer


# --- what a server writes, and what a client reads ------------------------------------------------------------


def said(endpoint: Endpoint, text: str | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk with a text."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    choice |= {"delta": {"content": text}} if endpoint == "chat.completions" else {"text": text}
    return {"id": "x", "created": 1, "model": "raw", "choices": [choice], **more}


def events(*chunks: Any, before: bytes = b"data: ", after: bytes = b"\n\n") -> bytes:
    return b"".join(before + json.dumps(chunk).encode() + after for chunk in chunks)


def hello(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [said(endpoint, "Hel"), said(endpoint, "lo"), said(endpoint, "", "stop")]


def whole(endpoint: Endpoint, **more: Any) -> dict[str, Any]:
    """An answer in one piece."""
    message = {"message": {"role": "assistant", "content": "Hello"}}
    content = message if endpoint == "chat.completions" else {"text": "Hello"}
    choice = {"index": 0, "finish_reason": "stop", **content}
    return {"id": "x", "created": 1, "model": "raw", "choices": [choice], "usage": USAGE, **more}


def in_one_piece(body: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)


def joined(answer: Answer, endpoint: Endpoint) -> dict[str, Any]:
    """What a client makes of a stream; it holds what OpenAI promises of each chunk."""
    assert answer.events[-1] == "[DONE]"
    assert not answer.cut
    content, reasoning, calls = "", "", dict[int, dict[str, Any]]()
    finish, usage = None, None
    for event in answer.events[:-1]:
        assert (event["model"], event["id"][:1] != "", type(event["created"])) == ("a", True, int)
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            assert choice["index"] == 0
            assert finish is None
            finish = choice["finish_reason"]
            assert finish != ""
            if endpoint == "completions":
                content += choice["text"]
                continue
            delta = choice["delta"]
            assert None not in delta.values()
            content += delta.get("content", "")
            reasoning += delta.get("reasoning", "") or delta.get("reasoning_content", "")
            for piece in delta.get("tool_calls", []):
                index, function = piece.pop("index"), piece.pop("function")
                if index not in calls:
                    calls[index] = piece | {"function": {"name": function["name"], "arguments": ""}}
                calls[index]["function"]["arguments"] += function["arguments"]
    if endpoint == "completions":
        return {"content": content, "finish": finish, "usage": usage}
    message: dict[str, Any] = {"role": "assistant", "content": content or None}
    if reasoning:
        message["reasoning"] = reasoning
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return {"content": message, "finish": finish, "usage": usage}


async def both(served: Served, wire: bytes, endpoint: Endpoint) -> dict[str, Any]:
    """What the answer says, which is the same streamed and in one piece."""
    streamed = await asked(served, wire, endpoint, stream=True, stream_options={"include_usage": True})
    assert streamed.status == 200, streamed.text
    assert "Infinity" not in streamed.text  # JSON has no word for it, and other clients refuse it
    one = await asked(served, wire, endpoint, stream=False)
    assert one.status == 200, one.text
    choice = one.json["choices"][0]
    content = choice["message"] if endpoint == "chat.completions" else choice["text"]
    told = {"content": content, "finish": choice["finish_reason"], "usage": one.json["usage"]}
    stream = joined(streamed, endpoint)
    if endpoint == "chat.completions":
        for each in (told, stream):
            _name_made_up_ids(each["content"].get("tool_calls", []))
    assert stream == told
    return told


def _name_made_up_ids(calls: list[dict[str, Any]]) -> None:
    """The ids that draftd makes are other ones in each answer."""
    for place, made in enumerate(calls):
        if made["id"].startswith("call_"):
            assert len(made["id"]) > 20
            made["id"] = f"made up {place}"


# --- one text, written in many ways ---------------------------------------------------------------------------


def odd(endpoint: Endpoint, **fields: Any) -> list[dict[str, Any]]:
    """Each chunk with fields of its choice set."""
    chunks = hello(endpoint)
    for made in chunks:
        made["choices"][0].update(fields)
    chunks[-1]["choices"][0]["finish_reason"] = "stop"
    return chunks


def without(endpoint: Endpoint, *names: str) -> list[dict[str, Any]]:
    return [{key: made[key] for key in made if key not in names} for made in hello(endpoint)]


def other_form(endpoint: Endpoint) -> bytes:
    """A chat's chunks with texts, and the other way round."""
    other: Endpoint = "completions" if endpoint == "chat.completions" else "chat.completions"
    return HEAD + events(*hello(other)) + DONE


def chunked(stream: bytes, *, ends: bool) -> bytes:
    return CHUNKED + b"%x\r\n%b\r\n" % (len(stream), stream) + (b"0\r\n\r\n" if ends else b"")


def message_in_an_event(endpoint: Endpoint) -> bytes:
    return HEAD + events(whole(endpoint)) + DONE


HELLO: dict[str, Wire] = {
    "as promised": lambda e: HEAD + events(*hello(e)) + DONE,
    "no [DONE]": lambda e: HEAD + events(*hello(e)),
    "no [DONE], usage last": lambda e: HEAD + events(*hello(e), {"choices": [], "usage": USAGE}),
    "no end of the last line": lambda e: HEAD + events(*hello(e)).rstrip(),
    "no last chunk, no [DONE]": lambda e: chunked(events(*hello(e)), ends=False),
    "no last chunk": lambda e: chunked(events(*hello(e)) + DONE, ends=False),
    "chunked": lambda e: chunked(events(*hello(e)) + DONE, ends=True),
    "a broken chunk behind the end": lambda e: chunked(events(*hello(e)), ends=False) + b"nonsense\r\n",
    "carriage returns": lambda e: HEAD + events(*hello(e), after=b"\r\n\r\n") + b"data: [DONE]\r\n\r\n",
    "no blank": lambda e: HEAD + events(*hello(e), before=b"data:") + b"data:[DONE]\n\n",
    "a byte order mark": lambda e: HEAD + b"\xef\xbb\xbf" + events(*hello(e)) + DONE,
    "half a byte order mark": lambda e: HEAD + b"\xef\xbb\0\xbf" + events(*hello(e)) + DONE,
    "kinds of events": lambda e: HEAD + events(*hello(e), before=b"event: message\nid: 1\ndata: ") + DONE,
    "comments": lambda e: HEAD + b": OPENROUTER PROCESSING\n\n" + events(*hello(e), before=b": x\ndata: "),
    "one newline": lambda e: HEAD + events(*hello(e), after=b"\n") + b"data: [DONE]\n",
    "two lines": lambda e: HEAD + b"".join(
        b"data: " + json.dumps(made, indent=0).replace("\n", "\ndata: ").encode() + b"\n\n"
        for made in hello(e)
    ) + DONE,
    "blanks around": lambda e: HEAD + b"\n\n" + events(*hello(e), after=b" \n\n") + b"data:  [DONE] \n\n",
    "an error that is null": lambda e: HEAD + events(*[made | {"error": None} for made in hello(e)]) + DONE,
    "pings": lambda e: HEAD + events({"choices": []}, *hello(e), {"choices": None, "usage": None}) + DONE,
    "no id, no time": lambda e: HEAD + events(*without(e, "id", "created")) + DONE,
    "a number for an id": lambda e: HEAD + events(*[made | {"id": 7} for made in hello(e)]) + DONE,
    "an id each": lambda e: HEAD + events(*[made | {"id": f"x{n}"} for n, made in enumerate(hello(e))]) + DONE,
    "half a second": lambda e: HEAD + events(*[made | {"created": 1.5} for made in hello(e)]) + DONE,
    "empty reasons": lambda e: HEAD + events(*odd(e, finish_reason="")) + DONE,
    "no index": lambda e: HEAD + events(*odd(e, index=None)) + DONE,
    "null log-probabilities": lambda e: HEAD + events(*odd(e, logprobs={"content": None})) + DONE,
    "choices that are null": lambda e: HEAD + events({"choices": [None]}, *hello(e)) + DONE,
    "a second choice": lambda e: HEAD + events(*hello(e)[:1], odd(e, index=1)[0], *hello(e)[1:]) + DONE,
    "the other endpoint's form": other_form,
    "another word for stop": lambda e: HEAD + events(*hello(e)[:2], said(e, None, "eos_token")) + DONE,
    "numbers that are none": lambda e: HEAD + events(*hello(e)).replace(b'"id"', b'"p": -Infinity, "id"') + DONE,
    "usage that is none": lambda e: HEAD + events(*hello(e), {"choices": [], "usage": 5}) + DONE,
    "usage of texts": lambda e: HEAD + events(*hello(e), {"choices": [], "usage": {"prompt_tokens": "3"}}) + DONE,
    "JSON": lambda e: in_one_piece(json.dumps(whole(e)).encode()),
    "JSON until closed": lambda e: HEAD + json.dumps(whole(e), indent=2).encode(),
    "JSON with a mark, in pieces": lambda e: HEAD + b"\xef\xbb\xbf \n" + b"\0".join(
        json.dumps(whole(e)).encode().partition(b"created")
    ),
    "JSON without a reason": lambda e: in_one_piece(
        json.dumps(whole(e)).replace('"stop"', "null").encode(), b"text/event-stream"
    ),
    "JSON in an event": message_in_an_event,
    "created": lambda e: HEAD.replace(b"200 OK", b"201 Created") + events(*hello(e)) + DONE,
    "hints first": lambda e: b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + HEAD + events(*hello(e)) + DONE,
}  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("case", HELLO)
async def test_however_a_server_writes_it_the_answer_is_the_same(
    served: Served, endpoint: Endpoint, case: str
) -> None:
    told = await both(served, HELLO[case](endpoint), endpoint)
    message = {"role": "assistant", "content": "Hello"}
    assert told["content"] == (message if endpoint == "chat.completions" else "Hello")
    assert told["finish"] == "stop"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "usage_in",
    [
        lambda e: [*hello(e), {"choices": [], "usage": USAGE}],
        lambda e: [*hello(e), {"usage": USAGE}],
        lambda e: [*hello(e), {"choices": None, "usage": USAGE}],
        lambda e: [*hello(e)[:2], said(e, "", "stop", usage=USAGE)],
        lambda e: [made | {"usage": USAGE} for made in hello(e)],
    ],
    ids=["alone", "no choices", "null choices", "with the end", "everywhere"],
)
async def test_usage_comes_in_a_chunk_of_its_own_to_who_asked_for_it(
    served: Served, endpoint: Endpoint, usage_in: Callable[[Endpoint], list[Any]]
) -> None:
    wire = HEAD + events(*usage_in(endpoint)) + DONE
    assert (await both(served, wire, endpoint))["usage"] == USAGE
    for wanted in (True, False):
        options = {"include_usage": wanted}
        streamed = await asked(served, wire, endpoint, stream=True, stream_options=options)
        alone = [event for event in streamed.events[:-1] if not event["choices"]]
        assert [event["usage"] for event in alone] == ([USAGE] if wanted else [])
    counted = (await served.metrics())['draftd_completion_tokens_total{profile="a"}']
    await asked(served, wire, endpoint, stream=False)
    assert (await served.metrics())['draftd_completion_tokens_total{profile="a"}'] == counted + 2


TIMINGS = {
    "cache_n": 1,
    "prompt_n": 2,
    "predicted_n": 2,
    "predicted_ms": 1.5,
    "draft_n": 4,
    "draft_n_accepted": 1,
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    "timed",
    [
        lambda e: [*hello(e), {"choices": [], "usage": USAGE, "timings": TIMINGS}],
        lambda e: [*hello(e)[:2], said(e, "", "stop", timings=TIMINGS), {"choices": [], "usage": USAGE}],
        lambda e: [*hello(e)[:2], said(e, "", "stop", timings=TIMINGS, usage=USAGE)],
        lambda e: [*hello(e), {"choices": [], "timings": TIMINGS}],
        whole,
    ],
    ids=["with the usage", "before the usage", "with the end", "alone", "in one piece"],
)
async def test_timings_reach_the_client_in_a_chunk_that_it_gets(
    served: Served, endpoint: Endpoint, timed: Callable[[Endpoint], Any]
) -> None:
    """They are on the last chunk of llama.cpp's, which has the usage; a client that wants none does not get it."""
    sent = timed(endpoint)
    if isinstance(sent, list):
        wire = HEAD + events(*sent[:3]) + b"\0" + events(*sent[3:]) + DONE
    else:
        wire = in_one_piece(json.dumps(sent | {"timings": TIMINGS}).encode())
    assert (await asked(served, wire, endpoint, stream=False)).json["timings"] == TIMINGS
    answer = await asked(served, wire, endpoint, stream=True)
    assert [event["timings"] for event in answer.events[:-1] if "timings" in event] == [TIMINGS]
    assert answer.events[-2]["timings"] == TIMINGS
    assert answer.events[-2]["choices"][0]["finish_reason"] == "stop"


async def test_half_a_character_is_seen_as_such_and_costs_nothing_else(served: Served) -> None:
    made = [said("chat.completions", "caf\ufffd"), said("chat.completions", "!", "stop")]
    wire = HEAD + b"".join(
        b"data: " + json.dumps(one, ensure_ascii=False).encode().replace("\ufffd".encode(), b"\xc3") + b"\n\n"
        for one in made
    )
    assert (await both(served, wire, "chat.completions"))["content"]["content"] == "caf\ufffd!"


async def test_reasoning_is_kept_apart_whatever_stands_beside_it(served: Served) -> None:
    deltas = [
        {"role": "assistant", "content": None, "reasoning_content": "Hm"},
        {"content": "", "reasoning_content": "m."},
        {"content": "So", "reasoning_content": None, "tool_calls": None, "refusal": None},
        {"content": [{"type": "text", "text": "!"}], "reasoning_content": ""},
        None,
    ]
    chunks = [{"choices": [{"delta": delta, "finish_reason": ""}]} for delta in deltas]
    chunks[-1]["choices"][0]["finish_reason"] = "stop"
    told = await both(served, HEAD + events(*chunks), "chat.completions")
    assert told["content"] == {"role": "assistant", "content": "So!", "reasoning": "Hmm."}


# --- tool calls -----------------------------------------------------------------------------------------------

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
    served: Served, case: str
) -> None:
    told = await both(served, HEAD + events(*calling(*CALLS[case])) + DONE, "chat.completions")
    assert told["finish"] == "tool_calls"
    made = told["content"]["tool_calls"]
    assert [each["function"] for each in made] == [{"name": "f", "arguments": text} for text in (ROME, OSLO)]
    assert len({each["id"] for each in made if each["id"]}) == 2
    assert {each["type"] for each in made} == {"function"}


async def test_different_functions_with_one_index_are_two_calls(served: Served) -> None:
    calls = calling([call("", "ping", index=0)], [call("", "pong", index=0)], [call("{}", None, index=0)])
    told = await both(served, HEAD + events(*calls) + DONE, "chat.completions")
    made = [each["function"] for each in told["content"]["tool_calls"]]
    assert made == [{"name": "ping", "arguments": ""}, {"name": "pong", "arguments": "{}"}]


async def test_one_call_twice_in_one_chunk_is_two(served: Served) -> None:
    calls = calling([call(None), call(None)])
    told = await both(served, HEAD + events(*calls) + DONE, "chat.completions")
    assert len(told["content"]["tool_calls"]) == 2


@pytest.mark.parametrize("arguments", [ROME, {"city": "Rome"}])
async def test_calls_in_an_answer_in_one_piece_become_a_stream(served: Served, arguments: Any) -> None:
    body = whole("chat.completions")
    calls = [call(arguments, id="a"), call(OSLO, index=0, extra={"kept": True})]
    body["choices"][0] |= {"message": {"content": None, "tool_calls": calls}, "finish_reason": "stop"}
    told = await both(served, in_one_piece(json.dumps(body).encode()), "chat.completions")
    assert told["finish"] == "tool_calls"
    first, second = told["content"]["tool_calls"]
    assert json.loads(first["function"]["arguments"]) == {"city": "Rome"}
    assert (second["function"]["arguments"], second["extra"]) == (OSLO, {"kept": True})


# --- errors ---------------------------------------------------------------------------------------------------


def error_of(message: str = "m", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


def refused(status: int, body: Any, *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} No", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


REFUSALS: dict[str, tuple[bytes, int, dict[str, Any]]] = {
    "too large": (
        refused(413, error_of(type="too_big", code="c", param="p")), 413,
        {"message": "m", "type": "too_big", "code": "c", "param": "p"},
    ),
    "too large, llama.cpp": (
        refused(400, error_of(code=400, type="exceed_context_size_error", n_ctx=4096)), 400,
        {"message": "m", "type": "exceed_context_size_error", "code": "400", "param": None},
    ),
    "vLLM": (
        refused(404, {"object": "error", "message": "m", "type": "NotFoundError", "param": None, "code": 404}),
        404, {"message": "m", "type": "NotFoundError", "code": "404"},
    ),
    "mlx_lm": (refused(404, {"error": "m"}), 400, {"message": "m", "type": "invalid_request_error"}),
    "FastAPI": (refused(404, {"detail": "Not Found"}), 404, {"message": "Not Found", "type": "not_found_error"}),
    "FastAPI's fields": (
        refused(422, {"detail": [{"loc": ["body", "n"], "msg": "too many", "type": "value_error"}]}), 422,
        {"message": "body.n: too many", "type": "invalid_request_error"},
    ),
    "an error in the detail": (refused(400, {"detail": error_of(type="t")}), 400, {"message": "m", "type": "t"}),
    "TGI": (refused(422, {"error": "m", "error_type": "validation"}), 422, {"message": "m", "type": "validation"}),
    "Anthropic's form": (
        refused(400, {"type": "error", "error": {"type": "t", "message": "m"}}), 400, {"message": "m", "type": "t"},
    ),
    "a text": (
        refused(400, b"no such thing"), 400, {"message": "the worker answered with status 400: no such thing"},
    ),
    "a page": (refused(400, b"<html>no</html>"), 400, {"message": "the worker answered with status 400"}),
    "nothing": (refused(409, b""), 409, {"message": "the worker answered with status 409"}),
    "not UTF-8": (refused(400, b'\xef\xbb\xbf{"error": {"message": "\xff"}}'), 400, {"message": "\ufffd"}),
    "a key": (
        refused(401, error_of("bad key", code="invalid_api_key")), 502,
        {
            "message": "the worker wants a key that draftd does not have (status 401): bad key",
            "code": "worker_refused", "type": "server_error",
        },
    ),
    "forbidden": (refused(403, b""), 502, {"code": "worker_refused"}),
    "its own fault": (refused(500, error_of(type="t", code="c")), 502, {"message": "m", "type": "t", "code": "c"}),
    "its own fault, no words": (refused(500, b""), 502, {"code": "bad_answer"}),
    "not built": (refused(501, error_of(type="not_supported_error")), 501, {"type": "not_supported_error"}),
    "out of time": (refused(504, b"upstream request timeout"), 504, {"type": "server_error"}),
    "overloaded": (refused(529, error_of(type="overloaded_error")), 529, {"type": "overloaded_error"}),
    "elsewhere": (
        refused(307, b"", "Location: /x"), 502,
        {"message": "the worker answered with status 307", "code": "bad_answer"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("case", REFUSALS)
async def test_a_refusal_keeps_its_status_type_code_and_words(
    served: Served, endpoint: Endpoint, stream: bool, case: str
) -> None:
    wire, status, fields = REFUSALS[case]
    answer = await asked(served, wire, endpoint, stream=stream)
    assert answer.status == status
    error = answer.json["error"]
    assert error | fields == error
    assert "ended" not in error["message"]
    assert "Retry-After" not in answer.headers
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (429, ("Retry-After: 17",), {"Retry-After": "17"}),
        (429, ("retry-after: 0.4",), {"Retry-After": "1"}),
        (429, (), {"Retry-After": "1"}),
        (429, ("Retry-After: soon",), {"Retry-After": "1"}),
        (429, ("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT",), {"Retry-After": "0"}),
        (429, ("Retry-After: 1e400",), {"Retry-After": "604800"}),
        (503, ("Retry-After: 5",), {"Retry-After": "5"}),
        (503, (), {"Retry-After": "1"}),
        (413, ("Retry-After: 5",), {"Retry-After": "5"}),
        (409, ("x-should-retry: false",), {"x-should-retry": "false"}),
    ],
)
async def test_when_to_come_again_is_passed_on(
    served: Served, stream: bool, status: int, headers: tuple[str, ...], told: dict[str, str]
) -> None:
    kind = error_of(type="t", code="rate_limit_exceeded")
    answer = await asked(served, refused(status, kind, *headers), "chat.completions", stream=stream)
    assert (answer.status, answer.json["error"]["type"]) == (status, "t")
    assert answer.json["error"]["code"] == "rate_limit_exceeded"
    names = ("Retry-After", "x-should-retry")
    assert {name: answer.headers[name] for name in names if name in answer.headers} == told


# In place of an answer, though the status is 200.
IN_PLACE: dict[str, tuple[bytes, int, dict[str, Any]]] = {
    "JSON": (in_one_piece(json.dumps(error_of(code="c", type="t")).encode()), 502, {"code": "c", "type": "t"}),
    "JSON with a status": (in_one_piece(json.dumps(error_of(code=413)).encode()), 413, {"code": "413"}),
    "JSON, a text": (in_one_piece(b'{"error": "m"}'), 502, {}),
    "JSON, vLLM": (in_one_piece(b'{"object": "error", "message": "m", "code": 400}'), 400, {}),
    "JSON, FastAPI": (in_one_piece(b'{"detail": "m"}'), 502, {}),
    "an event": (HEAD + events(error_of(type="rate_limit_error")) + DONE, 429, {"type": "rate_limit_error"}),
    "an event with a status": (HEAD + events(error_of(code=503, type="unavailable_error")), 503, {}),
    "an event with a key's status": (HEAD + events(error_of(code=401)), 502, {"code": "worker_refused"}),
    "an event of that kind": (HEAD + b"event: error\n" + events(error_of(type="t")), 502, {"type": "t"}),
    "a text of that kind": (HEAD + b"event: error\ndata: m\n\n", 502, {}),
    "a line of that kind": (HEAD + b'error: {"code": 500, "message": "m", "type": "server_error"}\n\n', 502, {}),
    "an event without end": (HEAD + events(error_of(type="t")).rstrip(), 502, {"type": "t"}),
    "an event beside choices": (HEAD + events({"choices": [], **error_of(code="c")}), 502, {"code": "c"}),
}  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("case", IN_PLACE)
async def test_an_error_in_place_of_an_answer_is_that_error(
    served: Served, endpoint: Endpoint, case: str
) -> None:
    wire, status, fields = IN_PLACE[case]
    for stream in (True, False):
        answer = await asked(served, wire, endpoint, stream=stream)
        assert answer.status == status, answer.text
        error = answer.json["error"]
        assert error | fields == error
        assert error["message"].endswith("m")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("behind", [DONE, b""])
async def test_an_error_in_mid_stream_keeps_its_type_code_and_words(
    served: Served, endpoint: Endpoint, behind: bytes
) -> None:
    begun = HEAD + events(*hello(endpoint)[:2]) + b"\0"
    wire = begun + events(error_of("out of memory", type="oom", code="c", param="p")) + behind
    fields = {"message": "out of memory", "type": "oom", "code": "c", "param": "p"}
    streamed = await asked(served, wire, endpoint, stream=True)
    assert streamed.cut
    assert streamed.events[-1] == {"error": fields}
    assert "Hel" in streamed.text
    one = await asked(served, wire, endpoint, stream=False)
    assert (one.status, one.json["error"]) == (502, fields)


BROKEN: dict[str, tuple[Wire, str]] = {
    "no answer": (lambda _: b"\0", "broke off before it answered"),
    "no HTTP": (lambda _: b"hello there\r\n\r\n", "is not HTTP"),
    "half": (lambda e: HEAD + events(*hello(e)[:2]), "broke off in the middle"),
    "half an event": (lambda e: HEAD + events(*hello(e)[:2]) + b'data: {"choi', "broke off in the middle"),
    "a broken chunk": (lambda e: chunked(events(*hello(e)[:2]), ends=False) + b"x\r\n", "broke off in the middle"),
    "half of JSON": (lambda e: HEAD + json.dumps(whole(e)).encode()[:-9], "nothing of an answer"),
    "a page": (lambda _: in_one_piece(b"<html>hi</html>", b"text/html"), "nothing of an answer"),
    "nothing": (lambda _: in_one_piece(b""), "nothing of an answer"),
    "other JSON": (lambda _: in_one_piece(b'{"a": 1}'), "JSON that is not an answer"),
    "no reason": (lambda e: HEAD + events(*hello(e)[:2]) + DONE, "no finish_reason"),
    "given up": (lambda e: HEAD + events(*hello(e)[:2], said(e, "", "abort")) + DONE, "given up"),
    "a number for a text": (lambda e: HEAD + events(*hello(e)[:1], said(e, 5)), "Expected `str"),  # type: ignore[arg-type]
    "no JSON": (lambda e: HEAD + events(*hello(e)[:1]) + b"data: {oops\n\n" + DONE, "not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("case", BROKEN)
async def test_a_worker_that_lives_is_not_said_to_have_ended(
    served: Served, endpoint: Endpoint, case: str
) -> None:
    make, words = BROKEN[case]
    for stream in (True, False):
        answer = await asked(served, make(endpoint), endpoint, stream=stream)
        error = answer.events[-1]["error"] if answer.cut else answer.json["error"]
        assert words in error["message"]
        assert "ended" not in error["message"]
        assert error["code"] == "bad_answer"
        assert answer.status == (200 if answer.cut else 502)
        assert "[DONE]" not in answer.text
    assert served.state("a") == "ready"
