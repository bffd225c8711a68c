"""The chunks of a chat completion as the events of OpenAI's responses, and as the response that they make. Pure.

An answer is a list of items, one after the other: reasoning, a message, and one item for each tool call. An item
ends where a chunk brings something of another kind. The response is put together from those same events, so a
stream and a whole answer cannot differ. Each event has a number, one more than that of the event before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from draftd.errors import DraftdError
from draftd.protocol import CONTEXT_LENGTH_EXCEEDED
from draftd.web import json_codec
from draftd.web.dialects.responses_tools import CUSTOM, custom_input
from draftd.web.dialects.uninterrupted import Part, Uninterrupted
from draftd.web.error_bodies import status_of

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_PARTS: Mapping[str, dict[str, Any]] = {
    "message": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
    "reasoning": {"type": "reasoning_text", "text": ""},
}
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}
Event = dict[str, Any]
EMPTY = b'""'
_DELTAS = {kind: f"response.{part['type']}.delta".encode() for kind, part in _PARTS.items()}
_TEXT_EVENT = (
    b"event: %b\n"
    b'data: {"type":"%b","sequence_number":%d,"item_id":"%b","output_index":%d,"content_index":0,"delta":%b%b}\n\n'
)


@dataclass(slots=True)
class ResponseAnswer:
    """Takes chunks, and gives events; `response` is what they have made so far.

    `repeated` is what the response repeats of the request, such as the model's name; `created` is in epoch seconds.
    """

    request_id: str
    created: int
    repeated: Mapping[str, Any]
    response: dict[str, Any] = field(default_factory=dict)
    _custom: frozenset[str] = frozenset()  # the names of the custom tools
    _order: Uninterrupted = field(default_factory=Uninterrupted)
    _open: tuple[str, Any] | None = None  # the kind of the item that is open, and the index of its call
    _pieces: list[str] = field(default_factory=list)  # of the open item's text, or of its call's arguments
    _reason: str | None = None  # why it is incomplete
    _sent: int = 0  # events

    def begin(self) -> Iterator[Event]:
        """The first events, unless they have been given; then the one that says that the answer is in progress."""
        if not self.response:
            self._custom = frozenset(
                tool["name"] for tool in self.repeated["tools"] if tool["type"] == CUSTOM
            )
            self.response = {
                **self.repeated,
                "id": f"resp_{self.request_id}",
                "object": "response",
                "created_at": self.created,
                "status": "in_progress",
                "output": [],
                "store": False,
                "background": False,
                "previous_response_id": None,
                "error": None,
                "incomplete_details": None,
                "usage": None,
            }
            yield self._event("response.created", response=self._snapshot())
        yield self._event("response.in_progress", response=self._snapshot())

    def take(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """The events of one chunk of the answer."""
        if not self.response:
            yield from self.begin()
        for choice in chunk.get("choices") or []:
            yield from self._parts(self._order.take(choice.get("delta") or {}))
            self._reason = _INCOMPLETE.get(choice.get("finish_reason"), self._reason)
        if chunk.get("usage"):
            self.response["usage"] = usage_of(chunk["usage"])

    def take_text(self, field: str, text: bytes) -> bytes | None:
        """The event, as it is sent, of a chunk with nothing but a `text`, a JSON string, in a field of its delta.

        None if there is more to do for it.
        """
        kind = "message" if field == "content" else "reasoning"
        if self._open != (kind, None) or text == EMPTY:
            return None
        self._pieces.append(json_codec.loads(text))
        self._sent += 1
        more = b',"logprobs":[]' if kind == "message" else b""
        name = _DELTAS[kind]
        return _TEXT_EVENT % (
            name, name, self._sent - 1, self._item["id"].encode(), self._index, text, more
        )  # fmt: skip

    def finish(self) -> Iterator[Event]:
        """The events of the regular end."""
        status = "incomplete" if self._reason else "completed"
        yield from self._parts(self._order.rest())
        yield from self._end_item(status)
        self.response["status"] = status
        if self._reason:
            self.response["incomplete_details"] = {"reason": self._reason}
        yield self._event(f"response.{status}", response=self._snapshot())

    def fail(self, error: DraftdError) -> Iterator[Event]:
        """The events of an answer that breaks off."""
        if not self.response:
            yield from self.begin()
        yield from self._parts(self._order.rest())
        yield from self._end_item("incomplete")
        self.response |= {"status": "failed", "error": {"code": _code(error), "message": str(error)}}
        yield self._event("response.failed", response=self._snapshot())

    def _event(self, kind: str, **more: Any) -> Event:
        self._sent += 1
        return {"type": kind, "sequence_number": self._sent - 1, **more}

    def _of_item(self, kind: str, **more: Any) -> Event:
        return self._event(kind, item_id=self._item["id"], output_index=self._index, **more)

    def _snapshot(self) -> dict[str, Any]:
        """The response so far: items that are open stand in their own events only."""
        closed = self.response["output"][: self._index if self._open else None]
        return {**self.response, "output": closed}

    @property
    def _index(self) -> int:
        return len(self.response["output"]) - 1

    @property
    def _item(self) -> dict[str, Any]:
        item: dict[str, Any] = self.response["output"][-1]
        return item

    def _parts(self, parts: Iterable[Part]) -> Iterator[Event]:
        for kind, part in parts:
            if kind == "call":
                yield from self._call(part)
            else:
                yield from self._text("reasoning" if kind == "thoughts" else "message", part)

    def _text(self, kind: str, text: str) -> Iterator[Event]:
        part = _PARTS[kind]
        if self._open != (kind, None):
            item: dict[str, Any] = {"role": "assistant"} if kind == "message" else {"summary": []}
            yield from self._begin_item((kind, None), {**item, "content": []})
            yield self._of_item("response.content_part.added", content_index=0, part=dict(part))
        self._pieces.append(text)
        logprobs: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
        yield self._of_item(f"response.{part['type']}.delta", content_index=0, delta=text, **logprobs)

    def _call(self, call: Mapping[str, Any]) -> Iterator[Event]:
        function = call.get("function") or {}
        if self._open is None or self._open[1] != call.get("index"):
            name = function.get("name") or ""
            custom = name in self._custom
            item = {"call_id": call.get("id") or "", "name": name, "input" if custom else "arguments": ""}
            kind = "custom_tool_call" if custom else "function_call"
            yield from self._begin_item((kind, call.get("index")), item)
        if arguments := function.get("arguments"):
            self._pieces.append(arguments)
            if self._item["type"] == "function_call":
                yield self._of_item("response.function_call_arguments.delta", delta=arguments)

    def _begin_item(self, kind: tuple[str, Any], fields: dict[str, Any]) -> Iterator[Event]:
        yield from self._end_item("completed")
        self._open = kind
        name = f"{_PREFIXES[kind[0]]}_{self.request_id}_{len(self.response['output'])}"
        self.response["output"].append({"type": kind[0], "id": name, "status": "in_progress", **fields})
        yield self._event("response.output_item.added", output_index=self._index, item=dict(self._item))

    def _end_item(self, status: str) -> Iterator[Event]:
        if self._open is None:
            return
        kind, whole = self._open[0], "".join(self._pieces)
        if kind in _PARTS:
            yield from self._end_text(_PARTS[kind], whole)
        elif kind == "custom_tool_call":
            self._item["input"] = custom_input(whole)
            yield self._of_item("response.custom_tool_call_input.delta", delta=self._item["input"])
            yield self._of_item("response.custom_tool_call_input.done", input=self._item["input"])
        else:
            self._item["arguments"] = whole
            named = {"name": self._item["name"], "arguments": whole}
            yield self._of_item("response.function_call_arguments.done", **named)
        self._item["status"] = status
        yield self._event("response.output_item.done", output_index=self._index, item=dict(self._item))
        self._open, self._pieces = None, []

    def _end_text(self, part: Mapping[str, Any], whole: str) -> Iterator[Event]:
        done = {**part, "text": whole}
        logprobs: dict[str, Any] = {"logprobs": []} if "logprobs" in part else {}
        yield self._of_item(f"response.{part['type']}.done", content_index=0, text=whole, **logprobs)
        yield self._of_item("response.content_part.done", content_index=0, part=done)
        self._item["content"] = [done]


def whole_response(completion: Mapping[str, Any], answer: ResponseAnswer) -> dict[str, Any]:
    """The response for an answer that came in one piece; `answer` has taken nothing yet."""
    choices = [{**choice, "delta": _with_places(choice["message"])} for choice in completion["choices"]]
    for _ in (*answer.take({**completion, "choices": choices}), *answer.finish()):
        pass
    return answer.response


def _with_places(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = [{**call, "index": place} for place, call in enumerate(message.get("tool_calls") or [])]
    return {**message, "tool_calls": calls}


def usage_of(usage: Mapping[str, Any]) -> dict[str, Any]:
    """The usage of a chat completion in the form of OpenAI's responses."""
    read, made = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": read + made,
    }


def _code(error: DraftdError) -> str:
    """OpenAI lists few codes; the one for a prompt that is too long is not among them, but clients know it."""
    if getattr(error, "code", None) == CONTEXT_LENGTH_EXCEEDED:
        return CONTEXT_LENGTH_EXCEEDED
    status = status_of(error)
    if status == 429:
        return "rate_limit_exceeded"
    return "server_error" if status >= 500 else "invalid_prompt"
