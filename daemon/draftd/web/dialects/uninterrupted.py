"""The parts of a chat's answer, in an order in which every tool call comes whole. Pure.

In a chat each piece of a call says which call it belongs to, so a server may write several side by side, or a text
between two pieces. Other dialects have blocks or items one after the other, and none of them is opened again.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Literal

Kind = Literal["thoughts", "text", "call"]
Part = tuple[Kind, Any]  # a text, or a piece of a call


class Uninterrupted:
    """Takes the deltas of one answer; gives their parts. What interrupts a call waits until that is over: when its
    arguments are an object, or at the end of the answer.
    """

    def __init__(self) -> None:
        self._waiting: deque[Part] = deque()
        self._call: int | None = None  # the index of the call that is not known to be over
        self._arguments: list[str] = []
        self._is_whole: bool | None = (
            None  # whether those arguments are; None if they have grown since the look
        )
        self._over: set[int | None] = set()

    def take(self, delta: Mapping[str, Any]) -> Iterator[Part]:
        """The parts that can be told now."""
        if thoughts := delta.get("reasoning") or delta.get("reasoning_content"):
            self._waiting.append(("thoughts", thoughts))
        for text in (delta.get("content"), delta.get("refusal")):
            if text:
                self._waiting.append(("text", text))
        self._waiting.extend(("call", call) for call in delta.get("tool_calls") or [])
        return self._tellable()

    def rest(self) -> Iterator[Part]:
        """What waits at the end of the answer."""
        while self._waiting:
            self._end_call()
            yield from self._tellable()

    def _tellable(self) -> Iterator[Part]:
        kept: list[Part] = []
        while self._waiting:
            part = self._waiting.popleft()
            index = part[1].get("index") if part[0] == "call" else None
            if index is not None and index in self._over:
                continue
            if self._call is not None and index != self._call:
                kept.append(part)
                if self._is_whole is None:
                    self._is_whole = _is_object("".join(self._arguments))
                if self._is_whole:
                    self._end_call()
                    self._waiting.extendleft(reversed(kept))
                    kept = []
                continue
            if index is not None:
                self._call = index
                self._arguments.append((part[1].get("function") or {}).get("arguments") or "")
                self._is_whole = None
            yield part
        self._waiting.extend(kept)

    def _end_call(self) -> None:
        self._over.add(self._call)
        self._call, self._arguments, self._is_whole = None, [], None


def as_chunk(completion: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion that came whole, as the one chunk of a stream: its tool calls get their indexes."""
    return {**completion, "choices": [_with_delta(choice) for choice in completion["choices"]]}


def _with_delta(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    calls = [{**call, "index": place} for place, call in enumerate(message.get("tool_calls") or [])]
    return {**choice, "delta": {**message, "tool_calls": calls}}


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False
