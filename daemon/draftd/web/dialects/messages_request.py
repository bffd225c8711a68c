"""A request in Anthropic's form (`/v1/messages`) as OpenAI's request for a chat completion. Pure.

Nothing is moved: a change at the beginning of a prompt costs the whole prompt cache. So a system message in the
middle of a conversation stays there, and the billing header that Claude Code puts in front of the system text,
different in each request, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from draftd.protocol import COUNT_FIELD
from draftd.web import json_codec
from draftd.web.dialects.messages_fields import COUNT, MESSAGES, OUTPUT, THINKING
from draftd.web.dialects.places import Place, object_at, refusal, string_in

_BILLING = "x-anthropic-billing-header:"
_SAME = ("model", "stream", "max_tokens", "temperature", "top_k", "top_p")
_CHOICES = {"auto": "auto", "none": "none", "any": "required"}
_UNREADABLE = "redacted_thinking"  # only Anthropic can read it
_NO_CONTENT = "must be a string or a list of blocks"
Fields = dict[str, Any]


def chat_request(body: Mapping[str, Any]) -> Fields:
    """The request for a chat. Raises RequestError (400)."""
    fields = MESSAGES.checked(body)
    chat = _common(fields) | {"stream_options": {"include_usage": True}}
    if "stop_sequences" in fields:
        chat["stop"] = fields["stop_sequences"]
    return chat


def count_request(body: Mapping[str, Any]) -> Fields:
    """The request for a chat that only counts the tokens of the prompt. Raises RequestError (400)."""
    return _common(COUNT.checked(body)) | {COUNT_FIELD: True}


def _common(fields: Fields) -> Fields:
    output = OUTPUT.checked(fields.get("output_config", {}), "output_config.")
    chat = {name: fields[name] for name in _SAME if name in fields}
    chat["messages"] = [*_system(fields.get("system")), *_messages(fields.get("messages"))]
    if "tools" in fields:
        chat["tools"] = [_tool(tool, ("tools", number)) for number, tool in enumerate(fields["tools"])]
    if "format" in output:
        chat["response_format"] = _format(output["format"])
    if "tool_choice" in fields:
        chat |= _choice(fields["tool_choice"])
    if thinking := THINKING.checked(fields.get("thinking", {}), "thinking."):
        chat["chat_template_kwargs"] = {"enable_thinking": thinking.get("type") != "disabled"}
    return chat


def _format(wanted: Fields) -> Fields:
    place: Place = ("output_config", "format")
    if wanted.get("type") != "json_schema":
        raise refusal((place, "type"), "must be json_schema", "unsupported_value")
    schema = object_at((place, "schema"), wanted.get("schema"))
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _system(system: Any) -> list[Fields]:
    if isinstance(system, str):
        first, newline, rest = system.partition("\n")
        text = rest if newline and first.startswith(_BILLING) else system
    else:
        texts = [_text(block, ("system", number)) for number, block in enumerate(system or [])]
        text = "\n\n".join(text for text in texts if not text.startswith(_BILLING))
    return [{"role": "system", "content": text}] if text else []


def _messages(messages: Any) -> list[Fields]:
    if not isinstance(messages, list) or not messages:
        raise refusal("messages", "must be a list with at least one message")
    made: list[Fields] = []
    for index, message in enumerate(messages):
        place: Place = ("messages", index)
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant", "system"):  # a tuple: it may be of any type
            raise refusal(place, "must have the role user, assistant or system")
        if role == "system" and _is_over(message, messages[index + 1 :]):
            continue
        content = message.get("content", [] if role == "system" else None)
        if isinstance(content, str):
            made.append({"role": role, "content": content})
        elif not isinstance(content, list):
            raise refusal((place, "content"), _NO_CONTENT)
        elif role == "assistant":
            made.append(_assistant(content, (place, "content")))
        else:
            made += _said(role, content, (place, "content"))
    if messages[-1]["role"] == "assistant":
        place = ("messages", len(messages) - 1)
        raise refusal(place, "begins the answer, which draftd cannot continue")
    return made


def _is_over(message: Fields, later: list[Any]) -> bool:
    """Whether a system message was only meant to last until the next user message, and one has come."""
    roles = [one.get("role") for one in later if isinstance(one, dict)]
    return message.get("clear_at") == "next_user_message" and "user" in roles


def _said(role: str, blocks: list[Any], place: Place) -> list[Fields]:
    """What a user or the system said, in order: a tool's result is a message of its own."""
    made: list[Fields] = []
    parts: list[str | Fields] = []
    for number, block in enumerate(blocks):
        if not isinstance(block, dict):
            raise refusal(place, _NO_CONTENT)
        if block.get("type") != "tool_result":
            parts.append(_part(block, (place, number)))
            continue
        if parts:
            made.append({"role": role, "content": _joined(parts)})
            parts = []
        made.append(_result(block, (place, number)))
    if parts:
        made.append({"role": role, "content": _joined(parts)})
    if role == "system" and not all(isinstance(message["content"], str) for message in made):
        raise refusal(place, "must hold only text")
    return made


def _result(block: Fields, place: Place) -> Fields:
    content = block.get("content") or ""
    parts: list[str | Fields]
    if isinstance(content, str):
        parts = [content]
    elif isinstance(content, list):
        parts = [_part(one, ((place, "content"), number)) for number, one in enumerate(content)]
    else:
        raise refusal((place, "content"), _NO_CONTENT)
    if block.get("is_error"):  # OpenAI's form has no field for it
        parts.insert(0, "Error:")
    return {
        "role": "tool",
        "tool_call_id": string_in(block, "tool_use_id", place),
        "content": _joined(parts),
    }


def _part(block: Any, place: Place) -> str | Fields:
    """A text, or an image as a part of a message."""
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": _image(block.get("source"), (place, "source"))}}
    if kind in ("tool_reference", "tool_addition", "tool_removal"):
        return _change_of_tools(block, place)
    return _text(block, place)


def _change_of_tools(block: Fields, place: Place) -> str:
    """A change of the tools is told where it happens, so that the beginning of the prompt stays as it is."""
    if block["type"] == "tool_reference":
        return f"The tool {string_in(block, 'tool_name', place)} can be used from now on."
    tool, of_the_tool = object_at((place, "tool"), block.get("tool")), (place, "tool")
    if block["type"] == "tool_removal":
        return f"The tool {string_in(tool, 'name', of_the_tool)} can no longer be used."
    if tool.get("type") == "tool_definition":
        inner: Place = (of_the_tool, "definition")
        function = _tool(object_at(inner, tool.get("definition")), inner)
        return f"This tool can be used from now on: {json.dumps(function)}"
    return f"The tool {string_in(tool, 'name', of_the_tool)} can be used from now on."


def _image(source: Any, place: Place) -> str:
    fields = object_at(place, source)
    if fields.get("type") == "base64":
        return f"data:{string_in(fields, 'media_type', place)};base64,{string_in(fields, 'data', place)}"
    return string_in(fields, "url", place)


def _joined(parts: list[str | Fields]) -> str | list[Fields]:
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) == len(parts):
        return "\n".join(texts)
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]


def _assistant(blocks: list[Any], place: Place) -> Fields:
    texts, thoughts, calls = [], [], []
    for number, block in enumerate(blocks):
        if not isinstance(block, dict):
            raise refusal(place, _NO_CONTENT)
        kind = block.get("type")
        if kind == "tool_use":
            calls.append(_call(block, (place, number)))
        elif kind == "thinking":
            thoughts.append(string_in(block, "thinking", (place, number), empty=True))
        elif kind != _UNREADABLE:
            texts.append(_text(block, (place, number)))
    message: Fields = {"role": "assistant", "content": "".join(texts)}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: Fields, place: Place) -> Fields:
    given = object_at((place, "input"), block.get("input") or {})
    function = {"name": string_in(block, "name", place), "arguments": json_codec.spaced(given)}
    return {"id": string_in(block, "id", place), "type": "function", "function": function}


def _text(block: Any, place: Place) -> str:
    if not isinstance(block, dict) or block.get("type") != "text":
        raise refusal(place, "is a block of a kind that is not supported")
    return string_in(block, "text", place, empty=True)


def _tool(tool: Fields, place: Place) -> Fields:
    if tool.get("type") not in (None, "custom"):
        says = "must be custom, or left out: draftd has no tools of its own"
        raise refusal((place, "type"), says, "unsupported_value")
    function = {"name": string_in(tool, "name", place), "parameters": tool.get("input_schema")}
    more = {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": function | more}


def _choice(choice: Fields) -> Fields:
    kind = choice.get("type")
    if kind == "tool":
        function = {"name": string_in(choice, "name", "tool_choice")}
        made: Fields = {"tool_choice": {"type": "function", "function": function}}
    elif isinstance(kind, str) and kind in _CHOICES:
        made = {"tool_choice": _CHOICES[kind]}
    else:
        raise refusal(("tool_choice", "type"), "must be auto, any, tool or none")
    one = choice.get("disable_parallel_tool_use")
    if not isinstance(one, bool | None):
        raise refusal(("tool_choice", "disable_parallel_tool_use"), "must be true or false")
    return made | ({"parallel_tool_calls": False} if one else {})
