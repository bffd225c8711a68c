"""Asks a daemon for answers that a foreign server gives: each as its case writes it, byte for byte.

Each is asked for as a stream and in one piece, and the joined stream must say what the whole answer says.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from draftd.web.request_body import Endpoint
from tests.harness import Answer, Served, chat

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ENDPOINTS: tuple[Endpoint, ...] = ("chat.completions", "completions")
Wire = Callable[[Endpoint], bytes]


async def asked(foreign: Served, wire: bytes, endpoint: Endpoint, *, stream: bool, **fields: Any) -> Answer:
    order = base64.b64encode(wire).decode()
    if endpoint == "chat.completions":
        answer = await foreign.post("/v1/chat/completions", chat(order, model="a", stream=stream, **fields))
    else:
        body = {"model": "a", "prompt": order, "stream": stream, **fields}
        answer = await foreign.post("/v1/completions", body)
    assert foreign.row("a")["restarts"] == 0
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
    """What a client makes of a stream; checks what OpenAI promises about each chunk."""
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


async def both(foreign: Served, wire: bytes, endpoint: Endpoint) -> dict[str, Any]:
    """What the answer says, which is the same as a stream and in one piece."""
    streamed = await asked(foreign, wire, endpoint, stream=True, stream_options={"include_usage": True})
    assert streamed.status == 200, streamed.text
    assert "Infinity" not in streamed.text  # JSON has no word for it, and other clients refuse it
    one = await asked(foreign, wire, endpoint, stream=False)
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
    """The ids that draftd makes differ from answer to answer."""
    for place, made in enumerate(calls):
        if made["id"].startswith("call_"):
            assert len(made["id"]) > 20
            made["id"] = f"made up {place}"


def chunked(stream: bytes, *, ends: bool) -> bytes:
    return CHUNKED + b"%x\r\n%b\r\n" % (len(stream), stream) + (b"0\r\n\r\n" if ends else b"")
