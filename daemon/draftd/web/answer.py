"""One answer of a worker as it comes in: each chunk is checked, and made into what the client was promised. Pure.

The death of a worker in mid-stream looks like a clean end of its connection; only a missing finish_reason shows it.
Most servers send a `[DONE]` after it as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from draftd.protocol import DRAFTERS_OF_TEXT
from draftd.web.answer_models import (
    MAX_TOKENS,
    Choice,
    Message,
    checked,
    chunks_of,
    count_in,
    is_error,
    read_json,
    reason_of,
    usage_in,
)
from draftd.web.request_body import Endpoint
from draftd.web.tool_calls import ToolCalls
from draftd.web.worker_errors import error_in

_SAID = frozenset({"delta", "message", "text"})  # what a choice says, by its names


class Answer:
    """One answer as it comes in. `model` is the name that the client used.

    `request_id` makes the ids that the worker did not give, `clock` the time of an answer that has none (epoch
    seconds).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        request_id: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._object = "chat.completion.chunk" if endpoint == "chat.completions" else "text_completion"
        self._model = model
        self._request_id = request_id
        self._clock = clock
        self._head: dict[str, Any] = {}
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusals: list[str] = []
        self._tool_calls: ToolCalls | None = None  # most answers have none
        self._logprobs: dict[str, list[Any]] = {}
        self._drafters: dict[str, list[Any]] = {}  # who drafted which piece of the text, where that is told
        self._role_sent = False
        self._stop_text: str | None = None  # the stop text that ended the answer, where the worker says so
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.timings: dict[str, Any] | None = None  # in llama.cpp's words
        self.done = False

    @property
    def begun(self) -> bool:
        """Whether anything has come that is a part of an answer."""
        return bool(self._head)

    @property
    def complete(self) -> bool:
        """Whether nothing more can come: there was a finish_reason, and the mark after it."""
        return self.done and self.finish_reason is not None

    def tokens(self, name: str) -> int:
        """A figure of the usage; 0 if it is missing or cannot be right."""
        count: int = (self.usage or {}).get(name, 0)
        return count

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that came out of the prompt cache; None if the worker does not say."""
        count: int | None = (self.usage or {}).get("prompt_tokens_details", {}).get("cached_tokens")
        return count

    def timing(self, name: str) -> int | None:
        """A count of the timings; None if it is missing or cannot be right."""
        return count_in((self.timings or {}).get(name))

    @property
    def told_speed(self) -> float | None:
        """Tokens per second, as the worker reports them; None if it does not."""
        speed: Any = (self.timings or {}).get("predicted_per_second")
        return float(speed) if type(speed) in {int, float} and 0 < speed < MAX_TOKENS else None

    def take(self, data: bytes) -> dict[str, Any] | None:
        """Take in one event's data; returns the chunk for the client, None for the end mark.

        Raises BrokenAnswerError for anything but a chunk, RequestError or WorkerError for an error that the worker
        reports.
        """
        if not data.startswith(b"{") and data.strip(b' \t"').upper() == b"[DONE]":
            self.done = True
            return None
        return self._take(read_json(data))

    def take_whole(self, data: bytes) -> list[dict[str, Any]]:
        """Take in an answer that comes in one piece; returns it as chunks. Raises as `take` does."""
        whole = read_json(data)
        if is_error(whole):
            raise error_in(whole)
        taken = [self._take(chunk) for chunk in chunks_of(whole)]
        self.done = True
        return taken

    def _take(self, chunk: dict[str, Any]) -> dict[str, Any]:
        if is_error(chunk):
            raise error_in(chunk)
        choices = checked(chunk)
        chunk.pop("error", None)
        head = self._head = self._head or self._head_of(chunk)
        chunk["id"], chunk["created"] = head["id"], head["created"]
        chunk["model"], chunk["object"] = self._model, self._object
        if "usage" in chunk:
            chunk["usage"] = usage_in(chunk["usage"])
            self.usage = chunk["usage"] or self.usage
        if isinstance(timings := chunk.get("timings"), dict):
            self.timings = timings
        chunk["choices"] = [self._take_choice(raw, choice) for raw, choice in choices]
        return chunk

    def _head_of(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """The id and the time of the answer, which are those of its first chunk."""
        kind = "chatcmpl" if self._endpoint == "chat.completions" else "cmpl"
        name: Any = chunk.get("id")
        created: Any = chunk.get("created")
        return {
            "id": name if name and isinstance(name, str) else f"{kind}-{self._request_id}",
            "created": int(self._clock() if type(created) not in {int, float} else created),
            "system_fingerprint": chunk.get("system_fingerprint"),
        }

    def _take_choice(self, raw: dict[str, Any], choice: Choice) -> dict[str, Any]:
        sent = raw.copy()
        for name in _SAID & sent.keys():
            del sent[name]
        if isinstance(stop_text := raw.get("stop_reason"), str):
            self._stop_text = stop_text
        if self._endpoint == "chat.completions":
            sent["delta"] = self._take_delta(raw, choice)
        else:
            came = choice.delta or choice.message or Message()
            sent["text"] = choice.text or came.text
            self._texts.append(sent["text"])
        if choice.logprobs:
            _extend(self._logprobs, choice.logprobs)
        if DRAFTERS_OF_TEXT in raw:
            _extend(self._drafters, _drafters_in(raw))
        reason = reason_of(choice, calls=bool(self._tool_calls))
        self.finish_reason = reason or self.finish_reason
        sent["index"], sent["finish_reason"] = 0, reason
        return sent

    def _take_delta(self, raw: dict[str, Any], choice: Choice) -> dict[str, Any]:
        came = choice.message if choice.delta is None else choice.delta
        came = came or Message()
        fields = raw.get("message" if choice.delta is None else "delta") or {}
        delta = {key: value for key, value in fields.items() if value is not None}
        if delta.pop("role", None) and not self._role_sent:
            self._role_sent = True
            delta["role"] = "assistant"
        content = came.text or choice.text or ""
        if came.content is not None or choice.text is not None:
            delta["content"] = content
        self._texts.append(content)
        self._reasoning.append(came.reasoning or came.reasoning_content or "")
        if came.refusal:
            self._refusals.append(came.refusal)
        raw_calls = delta.pop("tool_calls", None)
        if came.tool_calls:
            self._tool_calls = self._tool_calls or ToolCalls(self._request_id[:24])
            if calls := self._tool_calls.take(raw_calls, came.tool_calls):
                delta["tool_calls"] = calls
        return delta

    def add_texts(self, kind: str, texts: list[str]) -> None:
        """Add tokens that were read without `take`; `kind` is the name of their field."""
        (self._reasoning if kind.startswith("reasoning") else self._texts).extend(texts)

    def whole(self) -> dict[str, Any]:
        """The answer in one piece, for a client that did not ask for a stream."""
        text = "".join(self._texts)
        logprobs = {name: values or None for name, values in self._logprobs.items()} or None
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish_reason, "logprobs": logprobs}
        if self._stop_text is not None:
            choice["stop_reason"] = self._stop_text
        if self._drafters:
            choice[DRAFTERS_OF_TEXT] = self._drafters
        if self._endpoint == "completions":
            return self._body("text_completion", choice | {"text": text})
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if reasoning := "".join(self._reasoning):
            message["reasoning"] = reasoning
        if self._refusals:
            message["refusal"] = "".join(self._refusals)
        if self._tool_calls:
            message["tool_calls"] = self._tool_calls.whole()
        return self._body("chat.completion", choice | {"message": message})

    def _body(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        body = {**self._head, "object": kind, "model": self._model, "choices": [choice], "usage": self.usage}
        return body if self.timings is None else body | {"timings": self.timings}

    def usage_chunk(self) -> dict[str, Any]:
        """The usage in a chunk of its own, with the timings, for a client that asked for it."""
        return self._body(self._object, {}) | {"choices": []}


def _extend(lists: dict[str, list[Any]], more: Mapping[str, list[Any] | None]) -> None:
    for name, values in more.items():
        lists.setdefault(name, []).extend(values or [])


def _drafters_in(choice: dict[str, Any]) -> dict[str, list[Any]]:
    """What our engine says of who drafted; another server may mean something else by the same name."""
    told: Any = choice.get(DRAFTERS_OF_TEXT)
    if not isinstance(told, dict):
        return {}
    return {name: pieces for name, pieces in told.items() if isinstance(pieces, list)}
