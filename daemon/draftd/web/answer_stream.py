"""A worker's stream on its way to the client: cut into events, checked, renamed, or put together. Pure.

The death of a worker in mid-stream looks like a clean end of its connection; only a missing `[DONE]` and a missing
finish_reason show it. `Answer` keeps track of both.

Theory of operation. The events of one answer differ in a single JSON string, the text of a token. So `Relay`
parses the first event of a kind and writes it anew (by `Answer`), and keeps its `_Frame`: the bytes around the
text, as they come and as they go out. Later events with the same bytes around their text are not parsed: the text
is cut out and put into the client's frame. An event that fits no frame is parsed again. This is exact: what is cut
out must be a strict JSON string in ASCII, so it cannot hold a part of the frame.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from draftd.web import json_codec
from draftd.web.request_body import Endpoint

MAX_EVENT = 16 * 2**20  # bytes; larger than any real event, small enough to bound memory
DONE = b"data: [DONE]\n\n"
_EVENT_END = b"\n\n"
_any_event_end = re.compile(rb"(?:\r?\n){2}")
_PLAIN = rb"[ !#-\[\]-~]*+"
_STRING = rb'"' + _PLAIN + rb'(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})' + _PLAIN + rb')*+"'
_is_string = re.compile(_STRING).fullmatch
_TEXT = re.compile(rb'"(?:content|reasoning|reasoning_content|text)": ?(' + _STRING + rb")")
_ONE_TEXT = ({"content"}, {"reasoning"}, {"reasoning_content"})

T = TypeVar("T")


class BrokenAnswerError(Exception):
    """The worker's answer is not what it should be; the text says how, without quoting the answer."""


class EventSplitter:
    """Byte chunks in, the data of whole events out; comments are dropped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that `chunk` completes. Raises BrokenAnswerError if one grows without end."""
        buffer = self._rest + chunk
        *whole, self._rest = _any_event_end.split(buffer) if b"\r" in buffer else buffer.split(_EVENT_END)
        if len(self._rest) > MAX_EVENT:
            raise BrokenAnswerError("an event without end")
        return [data for event in whole if (data := _data_of(event))]

    def take_rest(self) -> bytes:
        """Take out what has come of an unfinished event; feed it again, in front of the next bytes."""
        rest, self._rest = self._rest, b""
        return rest


def _data_of(event: bytes) -> bytes:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = event.replace(b"\r\n", b"\n").split(b"\n")
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))


class Answer:
    """One answer as it comes in. `model` is the name that the client used."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self._endpoint = endpoint
        self._model = model
        self._head: dict[str, Any] = {}
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._logprobs: dict[str, list[Any]] = {}
        self._role_sent = False
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.done = False

    @property
    def complete(self) -> bool:
        """Whether the answer has come to its end: a finish_reason, and the mark after it."""
        return self.done and self.finish_reason is not None

    def take(self, data: bytes) -> dict[str, Any] | None:
        """Take in one event's data; returns the chunk with the client's names, None for the end mark.

        Raises BrokenAnswerError for anything but a chunk, and for an error that the worker reports.
        """
        if data == b"[DONE]":
            self.done = True
            return None
        try:
            chunk = _as(dict, json_codec.loads(data))
        except (ValueError, RecursionError) as error:
            raise BrokenAnswerError("an event that is not JSON") from error
        if chunk.get("error") is not None:
            raise BrokenAnswerError("an error reported by the worker")
        chunk["model"] = self._model
        chunk["object"] = (
            "chat.completion.chunk" if self._endpoint == "chat.completions" else "text_completion"
        )
        self._head = self._head or {key: chunk.get(key) for key in ("id", "created", "system_fingerprint")}
        self.usage = _as(dict, chunk.get("usage") or {}) or self.usage
        for choice in _as(list, chunk.get("choices", [])):
            self._take_choice(_as(dict, choice))
        return chunk

    def _take_choice(self, choice: dict[str, Any]) -> None:
        self._texts.append(_text(choice, "text"))
        delta = _as(dict, choice.get("delta", {}))
        if self._role_sent:
            delta.pop("role", None)
        self._role_sent |= "role" in delta
        self._texts.append(_text(delta, "content"))
        self._reasoning.append(_text(delta, "reasoning") or _text(delta, "reasoning_content"))
        for call in _as(list, delta.get("tool_calls") or []):
            self._take_call(_as(dict, call))
        for name, values in _as(dict, choice.get("logprobs") or {}).items():
            self._logprobs.setdefault(name, []).extend(_as(list, values or []))
        self._take_finish(choice)

    def _take_finish(self, choice: dict[str, Any]) -> None:
        reason = _text(choice, "finish_reason")
        # mlx_lm.server ends so when it cannot parse the model's call; agents then ask again without end.
        if reason == "tool_calls" and not self._tool_calls:
            reason = choice["finish_reason"] = "stop"
        self.finish_reason = reason or self.finish_reason

    def _take_call(self, call: dict[str, Any]) -> None:
        """Tool calls come in pieces, known by their index; the arguments are pieces of one text."""
        function = _as(dict, call.get("function") or {})
        index = _as(int, call.get("index", 0))
        whole = self._tool_calls.setdefault(
            index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        whole["id"] = _text(call, "id") or whole["id"]
        whole["function"]["name"] = _text(function, "name") or whole["function"]["name"]
        whole["function"]["arguments"] += _text(function, "arguments")

    def add_texts(self, kind: str, texts: list[str]) -> None:
        """Add tokens that were read without `take`; `kind` is the name of their field."""
        (self._reasoning if kind.startswith("reasoning") else self._texts).extend(texts)

    def whole(self) -> dict[str, Any]:
        """The answer in one piece, for a client that did not ask for a stream."""
        text = "".join(self._texts)
        logprobs = {name: values or None for name, values in self._logprobs.items()} or None
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish_reason, "logprobs": logprobs}
        if self._endpoint == "completions":
            return self._body("text_completion", choice | {"text": text})
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if reasoning := "".join(self._reasoning):
            message["reasoning"] = reasoning
        if self._tool_calls:
            message["tool_calls"] = [self._tool_calls[index] for index in sorted(self._tool_calls)]
        return self._body("chat.completion", choice | {"message": message})

    def _body(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._head, "object": kind, "model": self._model, "choices": [choice], "usage": self.usage}


def _as(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise BrokenAnswerError("an event that is not a chunk of an answer")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return "" if value is None else _as(str, value)


def to_event(chunk: dict[str, Any]) -> bytes:
    """A chunk as one event, in ASCII: half of a surrogate pair has no UTF-8."""
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def is_usage_only(chunk: dict[str, Any]) -> bool:
    """Whether this is the last chunk of a stream, which a client gets only if it asked for usage."""
    return not chunk.get("choices") and "usage" in chunk


@dataclass(frozen=True, slots=True)
class _Frame:
    """The bytes before and after the text of an event, without the event's end: `theirs` as they come, `ours` as
    they are sent.
    """

    theirs: tuple[bytes, bytes]
    ours: tuple[bytes, bytes]
    kind: str

    def text_of(self, event: bytes) -> bytes | None:
        """The JSON string in an event of this frame; None for any other event."""
        before, after = self.theirs
        text = event[len(before) : -len(after)]
        fits = event.startswith(before) and event.endswith(after) and _is_string(text)
        return text if fits else None

    def for_the_client(self, texts: list[bytes]) -> bytes:
        """The events with these texts as they are sent."""
        before, after = self.ours
        return before + (after + _EVENT_END + before).join(texts) + after + _EVENT_END


def _frame_of(event: bytes, chunk: dict[str, Any], sent: bytes) -> _Frame | None:
    """The frame of `event`, which goes out as `sent`; None if more than its one text could matter in the next."""
    choices = chunk.get("choices") or []
    if len(choices) != 1 or choices[0].get("finish_reason") or choices[0].get("logprobs"):
        return None
    delta = choices[0].get("delta")
    if delta and set(delta) not in _ONE_TEXT:
        return None
    theirs = _around_the_text(event)
    ours = theirs if sent is event else _around_the_text(sent)
    kind = next(iter(delta)) if delta else "text"
    return _Frame(theirs, ours, kind) if theirs and ours else None


def _around_the_text(event: bytes) -> tuple[bytes, bytes] | None:
    found = list(_TEXT.finditer(event))
    return (
        (event[: found[0].start(1)], event[found[0].end(1) : -len(_EVENT_END)]) if len(found) == 1 else None
    )


class Relay:
    """Takes one streamed answer to a client that wants a stream as well, or collects it for `answer.whole()`.

    `tokens` tells whether the newest bytes held any; `broken` is what is wrong with the answer, if anything is.
    """

    def __init__(self, answer: Answer, *, streams: bool, wants_usage: bool) -> None:
        self.answer = answer
        self._streams = streams
        self._wants_usage = wants_usage
        self._splitter = EventSplitter()
        self._frame: _Frame | None = None
        self.tokens = False
        self.broken: BrokenAnswerError | None = None

    def feed(self, data: bytes) -> bytes:
        """The events for a client that wants a stream, without the end mark, up to where the answer breaks."""
        self.tokens = False
        out: list[bytes] = []
        try:
            out.extend(self._events(self._splitter.take_rest() + data))
        except BrokenAnswerError as error:
            self.broken = error
        return b"".join(out)

    def _events(self, data: bytes) -> Iterator[bytes]:
        *events, rest = data.split(_EVENT_END)
        texts: list[bytes] = []
        for event in events:
            text = self._frame.text_of(event) if self._frame else None
            if text is not None:
                texts.append(text)
                continue
            yield self._pass(texts)
            texts = []
            if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
                yield self._parse(event[6:])
            else:
                yield from map(self._parse, self._splitter.feed(event + _EVENT_END))
        yield self._pass(texts)
        yield from map(self._parse, self._splitter.feed(rest))

    def _pass(self, texts: list[bytes]) -> bytes:
        if not self._frame or not texts:
            return b""
        self.tokens = True
        if self._streams:
            return self._frame.for_the_client(texts)
        self.answer.add_texts(self._frame.kind, json_codec.loads(b"[" + b",".join(texts) + b"]"))
        return b""

    def _parse(self, data: bytes) -> bytes:
        chunk = None if self.answer.done else self.answer.take(data)
        if chunk is None:
            return b""
        self.tokens |= bool(chunk.get("choices"))
        event = b"data: " + data + _EVENT_END
        sent = to_event(chunk) if self._streams else event
        self._frame = _frame_of(event, chunk, sent) or self._frame
        wanted = self._streams and (self._wants_usage or not is_usage_only(chunk))
        return sent if wanted else b""
