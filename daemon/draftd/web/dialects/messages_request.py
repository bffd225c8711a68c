"""A request in Anthropic's form (`/v1/messages`) as OpenAI's request for a chat completion. Pure.

Nothing is moved: a change at the beginning of a prompt costs the whole prompt cache. So a system message in the
middle of a conversation stays there, and the billing header that Claude Code puts in front of the system text,
different in each request, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from draftd.errors import RequestError
from draftd.protocol import COUNT_FIELD
from draftd.web import json_codec
from draftd.web.dialects.messages_fields import COUNT, MESSAGES, OUTPUT, THINKING

_BILLING = "x-anthropic-billing-header:"
_SAME = ("model", "stream", "max_tokens", "temperature", "top_k", "top_p")
_CHOICES = {"auto": "auto", "none": "none", "any": "required"}
_UNREADABLE = "redacted_thinking"  # only Anthropic can read it
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
        chat["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(fields["tools"])]
    if "format" in output:
        chat["response_format"] = _format(output["format"])
    if "tool_choice" in fields:
        chat |= _choice(fields["tool_choice"])
    if thinking := THINKING.checked(fields.get("thinking", {}), "thinking."):
        chat["chat_template_kwargs"] = {"enable_thinking": thinking.get("type") != "disabled"}
    return chat


def _format(wanted: Fields) -> Fields:
    if wanted.get("type") != "json_schema":
        place = "output_config.format.type"
        raise RequestError(400, f"{place} must be json_schema", code="unsupported_value", param=place)
    schema = _object(wanted.get("schema"), "output_config.format.schema")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _system(system: Any) -> list[Fields]:
    if isinstance(system, str):
        first, newline, rest = system.partition("\n")
        text = rest if newline and first.startswith(_BILLING) else system
    else:
        texts = [_text(block, f"system[{place}]") for place, block in enumerate(system or [])]
        text = "\n\n".join(text for text in texts if not text.startswith(_BILLING))
    return [{"role": "system", "content": text}] if text else []


def _messages(messages: Any) -> Iterator[Fields]:
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages must be a list with at least one message", param="messages")
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant", "system"):  # a tuple: it may be of any type
            raise RequestError(400, f"{place} must have the role user, assistant or system", param=place)
        if role == "system" and _is_over(message, messages[index + 1 :]):
            continue
        content = message.get("content", [] if role == "system" else None)
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            place += ".content"
            raise RequestError(400, f"{place} must be a string or a list of blocks", param=place)
        yield from _assistant(blocks, place) if role == "assistant" else _said(role, blocks, place)
    if messages[-1]["role"] == "assistant":
        place = f"messages[{len(messages) - 1}]"
        raise RequestError(400, f"{place} begins the answer, which draftd cannot continue", param=place)


def _is_over(message: Fields, later: list[Any]) -> bool:
    """Whether a system message was only meant to last until the next user message, and one has come."""
    roles = [one.get("role") for one in later if isinstance(one, dict)]
    return message.get("clear_at") == "next_user_message" and "user" in roles


def _said(role: str, blocks: list[Fields], place: str) -> Iterator[Fields]:
    """What a user or the system said, in order: a tool's result is a message of its own."""
    parts: list[Fields] = []
    for number, block in enumerate(blocks):
        if block.get("type") != "tool_result":
            parts.append(_part(block, f"{place}.content[{number}]"))
            continue
        if parts:
            yield {"role": role, "content": _joined(parts)}
            parts = []
        yield _result(block, f"{place}.content[{number}]")
    if parts:
        yield {"role": role, "content": _joined(parts)}


def _result(block: Fields, place: str) -> Fields:
    content = block.get("content")
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    parts = [_part(one, f"{place}.content") for one in blocks]
    if block.get("is_error"):  # OpenAI's form has no field for it
        parts.insert(0, {"type": "text", "text": "Error:"})
    return {"role": "tool", "tool_call_id": _word(block, "tool_use_id", place), "content": _joined(parts)}


def _part(block: Any, place: str) -> Fields:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": _image(block.get("source"), place)}}
    if kind in ("tool_reference", "tool_addition", "tool_removal"):
        return {"type": "text", "text": _change_of_tools(block, place)}
    return {"type": "text", "text": _text(block, place)}


def _change_of_tools(block: Fields, place: str) -> str:
    """A change of the tools is told where it happens, so that the beginning of the prompt stays as it is."""
    if block["type"] == "tool_reference":
        return f"The tool {_word(block, 'tool_name', place)} can be used from now on."
    tool = _object(block.get("tool"), f"{place}.tool")
    if block["type"] == "tool_removal":
        return f"The tool {_word(tool, 'name', place)} can no longer be used."
    if tool.get("type") == "tool_definition":
        function = _tool(_object(tool.get("definition"), f"{place}.definition"), f"{place}.definition")
        return f"This tool can be used from now on: {json.dumps(function)}"
    return f"The tool {_word(tool, 'name', place)} can be used from now on."


def _object(value: Any, place: str) -> Fields:
    if not isinstance(value, dict):
        raise RequestError(400, f"{place} must be an object", param=place)
    return value


def _image(source: Any, place: str) -> str:
    fields = _object(source, f"{place}.source")
    if fields.get("type") == "base64":
        return f"data:{_word(fields, 'media_type', place)};base64,{_word(fields, 'data', place)}"
    return _word(fields, "url", place)


def _joined(parts: list[Fields]) -> str | list[Fields]:
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _assistant(blocks: list[Fields], place: str) -> Iterator[Fields]:
    texts, thoughts, calls = [], [], []
    for number, block in enumerate(blocks):
        where, kind = f"{place}.content[{number}]", block.get("type")
        if kind == "thinking":
            thoughts.append(_word(block, "thinking", where, empty=True))
        elif kind == "tool_use":
            given = _object(block.get("input") or {}, f"{where}.input")
            function = {"name": _word(block, "name", where), "arguments": json_codec.spaced(given)}
            calls.append({"id": _word(block, "id", where), "type": "function", "function": function})
        elif kind != _UNREADABLE:
            texts.append(_text(block, where))
    message: Fields = {"role": "assistant", "content": "".join(texts)}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    yield message


def _text(block: Any, place: str) -> str:
    if not isinstance(block, dict) or block.get("type") != "text":
        raise RequestError(400, f"{place} is a block of a kind that is not supported", param=place)
    return _word(block, "text", place, empty=True)


def _word(fields: Fields, name: str, place: str, *, empty: bool = False) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise RequestError(400, f"{place}.{name} must be a string", param=f"{place}.{name}")
    return value


def _tool(tool: Fields, place: str) -> Fields:
    if tool.get("type") not in (None, "custom"):
        raise RequestError(
            400,
            f"{place}.type must be custom, or left out: draftd has no tools of its own",
            code="unsupported_value",
            param=f"{place}.type",
        )
    function = {"name": _word(tool, "name", place), "parameters": tool.get("input_schema")}
    more = {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": function | more}


def _choice(choice: Fields) -> Fields:
    kind = choice.get("type")
    if kind == "tool":
        function = {"name": _word(choice, "name", "tool_choice")}
        made: Fields = {"tool_choice": {"type": "function", "function": function}}
    elif isinstance(kind, str) and kind in _CHOICES:
        made = {"tool_choice": _CHOICES[kind]}
    else:
        raise RequestError(400, "tool_choice.type must be auto, any, tool or none", param="tool_choice.type")
    one = choice.get("disable_parallel_tool_use")
    if not isinstance(one, bool | None):
        place = "tool_choice.disable_parallel_tool_use"
        raise RequestError(400, f"{place} must be true or false", param=place)
    return made | ({"parallel_tool_calls": False} if one else {})
