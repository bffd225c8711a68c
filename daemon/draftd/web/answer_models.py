"""The types of what workers answer: every answer, and every chunk of one, is checked against them once. Pure.

A profile's `command` may start any server that speaks OpenAI's protocol, and no two of them speak it quite alike.
Null stands for absent everywhere. What is of the wrong type, and would end up in the text of an answer or in the
arguments of a call, is refused. Fields that no type names are left as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import msgspec

from draftd.web import json_codec

# Finish reasons in the words of other servers. OpenCode keeps asking again on a reason that it does not know.
_REASONS = {
    "eos": "stop", "eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop",
    "max_tokens": "length", "tool_use": "tool_calls",
}  # fmt: skip
_NONE = frozenset({"null", "none"})
_TOKENS = ("prompt_tokens", "completion_tokens")
_DETAILS = "_details"
MAX_TOKENS = 2**53  # more than can be; beyond it JSON's numbers are not exact
_GIVEN_UP = frozenset({"abort", "cancelled", "error"})


class BrokenAnswerError(Exception):
    """The worker's answer is not what it should be; the text says how, without quoting the answer."""


class NotJSONError(BrokenAnswerError):
    """It cannot be parsed, or broke off before its end."""


class Function(msgspec.Struct):
    """The function of a tool call: its name comes once, its arguments in pieces of one string, or as an object."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCall(msgspec.Struct):
    """A tool call, or a piece of one."""

    index: int | float | str | None = None
    id: str | int | None = None
    function: Function | None = None


class TextPart(msgspec.Struct):
    """A part of content that comes as a list."""

    text: str | None


class Message(msgspec.Struct):
    """A message, or what a chunk adds to one."""

    content: str | list[TextPart | str | None] | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall | None] | None = None

    @property
    def text(self) -> str:
        """The content in one piece."""
        if not isinstance(self.content, list):
            return self.content or ""
        texts = (part.text if isinstance(part, TextPart) else part for part in self.content)
        return "".join(text or "" for text in texts)


class Choice(msgspec.Struct):
    """In a chat completion it has a `delta`, or a `message` if it is whole; in a text completion, a `text`."""

    index: int | float | str | None = None
    delta: Message | None = None
    message: Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: dict[str, list[Any] | None] | None = None

    @property
    def is_first(self) -> bool:
        """Whether it has the index 0, or none that says anything."""
        try:
            return int(self.index or 0) == 0
        except (ValueError, OverflowError):
            return True


class Chunk(msgspec.Struct):
    """An answer, or a part of one."""

    choices: list[Choice | None] | None = None


def read_json(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises BrokenAnswerError.

    Bytes that are not UTF-8, such as half of a character, are replaced; NaN and infinities become null.
    """
    try:
        try:
            value = json_codec.strictly(data)
        except json_codec.FAULTS:
            text = data.decode("utf-8", "replace")
            value = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise NotJSONError("an event that is not JSON") from error
    if not isinstance(value, dict | None):
        raise BrokenAnswerError("an event that is not a chunk of an answer")
    return value or {}


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def is_error(body: dict[str, Any]) -> bool:
    """Whether an error stands in place of an answer, or of a chunk of one."""
    if body.get("error") or body.get("object") == "error":
        return True
    return body.get("choices") is None and not body.keys().isdisjoint({"detail", "message"})


def checked(chunk: dict[str, Any]) -> list[tuple[dict[str, Any], Choice]]:
    """The choices of a chunk as they came, each with its parsed form. Raises BrokenAnswerError.

    Only one choice is asked for, the first. Any other would get mixed up with it, and is left out.
    """
    try:
        choices = msgspec.convert(chunk, Chunk).choices or []
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: half of a surrogate pair
        raise BrokenAnswerError(f"an event that is not a chunk of an answer: {error}") from error
    return [
        (raw, choice)
        for raw, choice in zip(chunk.get("choices") or [], choices, strict=True)
        if choice is not None and choice.is_first
    ]


def usage_in(given: object) -> dict[str, Any] | None:
    """The usage of an answer with nothing but counts where it should have them; None for none.

    It says what an answer cost and not what it is, so nothing that stands here makes an answer a broken one.
    """
    if not given or not isinstance(given, dict):
        return None
    made = {name: value for name, value in given.items() if not name.endswith(_DETAILS)}
    made |= {name: count_in(given.get(name)) or 0 for name in _TOKENS}
    if count_in(given.get("total_tokens")) is None:
        made["total_tokens"] = sum(made[name] for name in _TOKENS)
    for name in given.keys() - made.keys():
        details: Any = given[name]
        if isinstance(details, dict):
            counts = {part: count_in(value) for part, value in details.items()}
            made[name] = {part: count for part, count in counts.items() if count is not None}
    return made


def count_in(figure: object) -> int | None:
    """A number of tokens; None for anything that cannot be one."""
    if isinstance(figure, float) and figure.is_integer():
        figure = int(figure)
    return figure if type(figure) is int and 0 <= figure <= MAX_TOKENS else None


def reason_of(choice: Choice, *, calls: bool) -> str | None:
    """Why the answer ends here, in OpenAI's words; None if it goes on. Raises BrokenAnswerError if it was given up.

    `calls` tells whether there have been tool calls. mlx_lm.server says `tool_calls` even where it could not parse
    the only one, and agents then ask again without end; other servers say `stop`, and agents do not make the call.
    """
    if not choice.finish_reason:
        return None
    reason = choice.finish_reason.lower()
    if reason in _NONE:
        return None
    if reason in _GIVEN_UP:
        raise BrokenAnswerError("the worker gave it up")
    reason = _REASONS.get(reason, reason)
    if reason in {"stop", "tool_calls"}:
        return "tool_calls" if calls else "stop"
    return reason


def chunks_of(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An answer in one piece as the chunks of a stream: what it says, why it ends, and its usage.

    Raises BrokenAnswerError. Its closing bracket shows that it is all there, so it may lack the finish reason.
    """
    found = checked(whole)
    if not found:
        raise BrokenAnswerError("JSON that is not an answer")
    raw, choice = found[0]
    said = {key: value for key, value in raw.items() if key != "finish_reason"}
    calls = (raw.get("message") or {}).get("tool_calls")
    if calls:  # each entry is a whole call, whatever their indexes say
        numbered = [call and {**call, "index": place} for place, call in enumerate(calls)]
        said["message"] = raw["message"] | {"tool_calls": numbered}
    head = {key: whole.get(key) for key in ("id", "created", "system_fingerprint")}
    yield head | {"choices": [said]}
    rest = {key: value for key, value in whole.items() if key not in {"usage", "choices"}}
    yield rest | {"choices": [{"finish_reason": choice.finish_reason or "stop"}]}
    if whole.get("usage"):
        yield head | {"choices": [], "usage": whole["usage"]}
