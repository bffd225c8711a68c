"""The chunks of a chat completion as Anthropic's events, and as the message that they make. Pure.

An answer is a list of blocks, one after the other: thinking, text, and one block for each tool call. A block ends
where a chunk brings something of another kind. The message is put together from those same events, so a stream and
a whole answer cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from draftd.web import json_codec
from draftd.web.dialects.uninterrupted import Part, Uninterrupted

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
Event = dict[str, Any]
EMPTY = b'""'
_TEXT_EVENT = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"%b_delta","%b":%b}}\n\n'
)


@dataclass(slots=True)
class MessageAnswer:
    """Takes chunks, and gives events; `message` is what they have made so far.

    Its id is made from the request's: some servers give every answer the same one, and Claude Code takes messages
    with the same id for parts of one message.
    """

    request_id: str
    message: dict[str, Any] = field(default_factory=dict)
    _order: Uninterrupted = field(default_factory=Uninterrupted)
    _open: tuple[str, Any] | None = None  # the kind of the block that is open, and the index of its call
    _pieces: list[str] = field(default_factory=list)  # of the open block's text, or of its call's arguments

    def take(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """The events of one chunk of the answer."""
        if not self.message:
            yield self._start(chunk)
        for choice in chunk.get("choices") or []:
            yield from self._parts(self._order.take(choice.get("delta") or {}))
            self._take_reason(choice)
        if chunk.get("usage"):
            self.message["usage"] = usage_of(chunk["usage"])

    def take_text(self, field: str, text: bytes) -> bytes | None:
        """The event, as it is sent, of a chunk with nothing but a `text`, a JSON string, in a field of its delta.

        None if there is more to do for it.
        """
        kind = "text" if field == "content" else "thinking"
        if self._open != (kind, None) or text == EMPTY:
            return None
        self._pieces.append(json_codec.loads(text))
        return _TEXT_EVENT % (self._index, kind.encode(), kind.encode(), text)

    def finish(self) -> Iterator[Event]:
        """The events of the regular end."""
        yield from self._parts(self._order.rest())
        yield from self._end_block()
        delta = {name: self.message[name] for name in ("stop_reason", "stop_sequence")}
        yield {"type": "message_delta", "delta": delta, "usage": self.message["usage"]}
        yield {"type": "message_stop"}

    def _start(self, chunk: Mapping[str, Any]) -> Event:
        self.message = {
            "id": f"msg_{self.request_id}",
            "type": "message",
            "role": "assistant",
            "model": chunk.get("model"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_of({}),
        }
        return {"type": "message_start", "message": {**self.message, "content": []}}

    def _take_reason(self, choice: Mapping[str, Any]) -> None:
        if reason := choice.get("finish_reason"):
            self.message["stop_reason"] = _STOP_REASONS.get(reason, "end_turn")
        if isinstance(stop := choice.get("stop_reason"), str):
            self.message |= {"stop_reason": "stop_sequence", "stop_sequence": stop}

    def _parts(self, parts: Iterable[Part]) -> Iterator[Event]:
        for kind, part in parts:
            if kind == "call":
                yield from self._call(part)
            else:
                yield from self._text("thinking" if kind == "thoughts" else "text", part)

    def _text(self, kind: str, text: str) -> Iterator[Event]:
        if self._open != (kind, None):
            block = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
            yield from self._begin((kind, None), block)
        self._pieces.append(text)
        yield self._delta({"type": f"{kind}_delta", kind: text})

    def _call(self, call: Mapping[str, Any]) -> Iterator[Event]:
        function = call.get("function") or {}
        if self._open != ("tool_use", call.get("index")):
            block: dict[str, Any] = {
                "type": "tool_use",
                "id": call.get("id") or "",
                "name": function.get("name") or "",
                "input": {},
            }
            yield from self._begin(("tool_use", call.get("index")), block)
        if arguments := function.get("arguments"):
            self._pieces.append(arguments)
            yield self._delta({"type": "input_json_delta", "partial_json": arguments})

    def _begin(self, kind: tuple[str, Any], block: dict[str, Any]) -> Iterator[Event]:
        yield from self._end_block()
        self._open = kind
        self.message["content"].append(block)
        yield {"type": "content_block_start", "index": self._index, "content_block": dict(block)}

    def _end_block(self) -> Iterator[Event]:
        if self._open is None:
            return
        kind, whole = self._open[0], "".join(self._pieces)
        if kind == "tool_use":
            self.message["content"][-1]["input"] = _object(whole)
        else:
            self.message["content"][-1][kind] = whole
        self._open, self._pieces = None, []
        yield {"type": "content_block_stop", "index": self._index}

    def _delta(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    @property
    def _index(self) -> int:
        return len(self.message["content"]) - 1


def whole_message(completion: Mapping[str, Any], answer: MessageAnswer) -> dict[str, Any]:
    """The message for an answer that came in one piece; `answer` has taken nothing yet."""
    choices = [{**choice, "delta": _with_places(choice["message"])} for choice in completion["choices"]]
    for _ in (*answer.take({**completion, "choices": choices}), *answer.finish()):
        pass
    return answer.message


def _with_places(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = [{**call, "index": place} for place, call in enumerate(message.get("tool_calls") or [])]
    return {**message, "tool_calls": calls}


def usage_of(usage: Mapping[str, Any]) -> dict[str, int]:
    """OpenAI's usage in Anthropic's form, which counts prompt tokens that came out of the cache separately."""
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": max(0, (usage.get("prompt_tokens") or 0) - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.get("completion_tokens") or 0,
    }


def _object(text: str) -> dict[str, Any]:
    """The arguments of a call. Anthropic's form has no place for anything but an object."""
    try:
        value = json.loads(text or "{}", parse_constant=_no_constant)
    except (ValueError, RecursionError):
        value = text
    return value if isinstance(value, dict) else {"arguments": value}


def _no_constant(name: str) -> None:
    """Raises ValueError: Python would read NaN and Infinity, which are no JSON, and write them again."""
    raise ValueError(name)
