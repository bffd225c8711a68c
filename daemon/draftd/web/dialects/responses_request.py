"""A request in the form of OpenAI's responses (`/v1/responses`) as one for a chat completion. Pure.

`input` is a flat list of items. What a model did in one turn (reasoning, text and calls) is a run of items, which
becomes one chat message. Templates want all system text first, so it is put there, in its order. Items of the kinds
that draftd never makes are refused, except for those that hold nothing that a model could read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from draftd.protocol import GRAMMARS_FIELD
from draftd.web import json_codec
from draftd.web.dialects.places import Place, refusal, string_in
from draftd.web.dialects.responses_fields import REASONING, RESPONSES, TEXT_OUTPUT
from draftd.web.dialects.responses_tools import chat_choice, chat_tools, custom_arguments, grammars, offered

_SAME = ("model", "stream", "temperature", "top_p", "parallel_tool_calls")
_REPEATED = (
    "instructions", "max_output_tokens", "max_tool_calls", "metadata", "parallel_tool_calls", "prompt_cache_key",
    "reasoning", "safety_identifier", "temperature", "text", "tool_choice", "top_p", "user",
)  # fmt: skip
_SYSTEM_ROLES = ("system", "developer")
_TEXTS = ("input_text", "output_text", "text")
_WITHOUT_TEXT = ("web_search_call", "compaction_trigger")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
Fields = dict[str, Any]


def chat_request(body: Mapping[str, Any]) -> Fields:
    """The request for a chat. Raises RequestError (400)."""
    fields = RESPONSES.checked(body)
    text = TEXT_OUTPUT.checked(fields.get("text", {}), "text.")
    reasoning = REASONING.checked(fields.get("reasoning", {}), "reasoning.")
    chat = {name: fields[name] for name in _SAME if name in fields}
    chat["stream_options"] = {**fields.get("stream_options", {}), "include_usage": True}
    chat["messages"] = _messages(fields.get("instructions"), fields.get("input"))
    if "max_output_tokens" in fields:
        chat["max_tokens"] = fields["max_output_tokens"]
    if tools := chat_tools(fields.get("tools", [])):
        chat["tools"] = tools
        if made := grammars(fields["tools"]):
            chat[GRAMMARS_FIELD] = made
    if fields.get("tool_choice", "auto") != "auto":
        chat["tool_choice"] = chat_choice(fields["tool_choice"])
    if "effort" in reasoning:
        chat["reasoning_effort"] = reasoning["effort"]
    if "format" in text and (wanted := _format(text["format"])):
        chat["response_format"] = wanted
    return chat


def repeated(body: Mapping[str, Any]) -> Fields:
    """What the answer repeats of a request that `chat_request` took, with the values of what it left out."""
    known = {name: body[name] for name in _REPEATED if body.get(name) is not None}
    defaults = {"parallel_tool_calls": True, "tool_choice": "auto", "truncation": "disabled"}
    return {**defaults, **known, "tools": offered(body.get("tools") or [])}


def _format(wanted: Fields) -> Fields | None:
    kind = wanted.get("type")
    if kind == "json_schema":
        return {"type": kind, "json_schema": {name: wanted[name] for name in wanted if name != "type"}}
    if kind in ("text", "json_object"):  # a tuple: it may be of any type
        return {"type": kind} if kind == "json_object" else None
    place: Place = (("text", "format"), "type")
    raise refusal(place, "must be text, json_object or json_schema", "unsupported_value")


def _messages(instructions: str | None, given: Any) -> list[Fields]:
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items:
        raise refusal("input", "must be a string or a list with at least one item")
    conversation = _Conversation()
    for number, item in enumerate(items):
        conversation.take(item, ("input", number))
    system = [text for text in (instructions, *conversation.system) if text]
    first = [{"role": "system", "content": "\n\n".join(system)}] if system else []
    return [*first, *conversation.messages]


class _Conversation:
    """Takes items in their order; `messages` are those of the chat, without the `system` texts."""

    def __init__(self) -> None:
        self.system: list[str] = []
        self.messages: list[Fields] = []
        self._turn: Fields | None = None  # the message of the model's turn, as long as that is not over
        self._said = False  # whether the newest item of that turn was text

    def take(self, item: Any, place: Place) -> None:
        """Raises RequestError (400)."""
        if not isinstance(item, dict):
            raise refusal(place, "must be an object")
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "message":
            self._message(item, place)
        elif kind in ("function_call", "custom_tool_call"):
            self._call(item, kind, place)
        elif kind in _OUTPUTS:
            self._turn = None
            content = _content(item.get("output"), (place, "output"))
            call_id = string_in(item, "call_id", place)
            self.messages.append({"role": "tool", "tool_call_id": call_id, "content": content})
        elif kind == "reasoning":
            self._reasoning(item, place)
        elif kind not in _WITHOUT_TEXT:
            raise refusal(place, "is an item of a kind that is not supported")

    def _message(self, item: Fields, place: Place) -> None:
        role, content = item.get("role"), _content(item.get("content"), (place, "content"))
        if role in _SYSTEM_ROLES:
            self.system.append(_only_text(content, (place, "content")))
        elif role == "user":
            self._turn = None
            self.messages.append({"role": role, "content": content})
        elif role == "assistant":
            if self._said:
                self._turn = None
            self._of_the_turn()["content"] += _only_text(content, (place, "content"))
            self._said = True
        else:
            raise refusal(place, "must have the role user, assistant, system or developer")

    def _reasoning(self, item: Fields, place: Place) -> None:
        """The reasoning itself, or its summary; only whoever encrypted it can read encrypted reasoning."""
        parts = item.get("content") or item.get("summary") or []
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise refusal(place, "must have a content or a summary of texts")
        if thoughts := "".join(string_in(part, "text", place, empty=True) for part in parts):
            turn = self._of_the_turn()
            turn["reasoning_content"] = turn.get("reasoning_content", "") + thoughts

    def _call(self, item: Fields, kind: str, place: Place) -> None:
        if kind == "custom_tool_call":
            arguments = custom_arguments(string_in(item, "input", place, empty=True))
        else:
            arguments = json_codec.as_json(string_in(item, "arguments", place, empty=True) or "{}")
        function = {"name": string_in(item, "name", place), "arguments": arguments}
        call = {"id": string_in(item, "call_id", place), "type": "function", "function": function}
        self._of_the_turn().setdefault("tool_calls", []).append(call)

    def _of_the_turn(self) -> Fields:
        if self._turn is None:
            self._turn = {"role": "assistant", "content": ""}
            self.messages.append(self._turn)
        self._said = False
        return self._turn


def _content(content: Any, place: Place) -> str | list[Fields]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise refusal(place, "must be a string or a list of parts")
    parts = [_part(part, (place, number)) for number, part in enumerate(content)]
    return _joined(parts) if all(part["type"] == "text" for part in parts) else parts


def _part(part: Any, place: Place) -> Fields:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS:
        return {"type": "text", "text": string_in(part, "text", place, empty=True)}
    if kind == "refusal":
        return {"type": "text", "text": string_in(part, "refusal", place, empty=True)}
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": string_in(part, "image_url", place)}}
    raise refusal(place, "is a part of a kind that is not supported")


def _joined(parts: Iterable[Fields]) -> str:
    return "\n".join(part["text"] for part in parts)


def _only_text(content: str | list[Fields], place: Place) -> str:
    if not isinstance(content, str):
        raise refusal(place, "must hold only text")
    return content
