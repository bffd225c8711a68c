"""What a model is to read: the messages or the text of a request, checked, with the profile's system prompt.

Pure.
"""

from __future__ import annotations

import json
from typing import Any

from draftd.errors import RequestError
from draftd.web.dialects import fields as tables


def messages(fields: dict[str, Any], *, foreign: bool) -> list[dict[str, Any]]:
    """The messages, checked. Another server, a `foreign` one, gets content that holds more than text as it is.

    Raises RequestError (400).
    """
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages must be a list with at least one message", param="messages")
    return [_message(message, f"messages[{index}]", foreign) for index, message in enumerate(messages)]


def _message(message: Any, place: str, foreign: bool) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestError(400, f"{place} must be an object with a role", param=place)
    made = tables.MESSAGE.checked(message, f"{place}.", foreign=foreign)
    if made["role"] == "function":
        text = f"{place}.role must be tool for what a function returned: function is the older name"
        raise RequestError(400, text, param=f"{place}.role")
    if made["role"] == "developer":  # the newer name of `system`, unknown to chat templates
        made["role"] = "system"
    content = made.get("content")
    # The profile's system prompt may be joined with the client's, so that has to be a text in any case.
    if not foreign or made["role"] == "system" or not _holds_more_than_text(content):
        made["content"] = _content(content, f"{place}.content") + made.pop("refusal", "")
    if "tool_calls" in made:
        made["tool_calls"] = _past_calls(made["tool_calls"], f"{place}.tool_calls")
    return made


def _holds_more_than_text(content: Any) -> bool:
    kinds = (
        [part.get("type") for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    )
    return any(kind != "text" for kind in kinds)


def _content(content: Any, place: str) -> str:
    """Text, or text parts joined. Images are refused: mlx_lm.server would fetch remote ones, even for a text
    model, and cannot draft with any. (Another server, started by a `command`, gets them as they are.)
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise RequestError(400, f"{place} must be a text or a list of text parts", param=place)
    return "".join(_part_text(part, place) for part in content)


def _part_text(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(kind) if kind in {"text", "refusal"} else None
    if not isinstance(text, str):
        raise RequestError(400, f"{place}: only text parts are supported, no images or audio", param=place)
    return text


def _past_calls(calls: Any, place: str) -> list[dict[str, Any]]:
    """mlx_lm.server parses the arguments of past calls; where they are not JSON, they become one JSON string."""
    if not isinstance(calls, list):
        raise RequestError(400, f"{place} must be a list", param=place)
    made = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RequestError(400, f"{place}: each call needs a function with a name", param=place)
        arguments = _json_text(function.get("arguments") or "{}")
        made.append({**call, "function": {**function, "arguments": arguments}})
    return made


def _json_text(arguments: Any) -> str:
    if not isinstance(arguments, str):
        return json.dumps(arguments)
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return json.dumps(arguments)
    return arguments


def with_system_prompt(messages: list[dict[str, Any]], prompt: str, mode: str) -> list[dict[str, Any]]:
    """The messages with the profile's system prompt. It depends on the mode what becomes of the client's own:
    `default` leaves it, and adds the prompt only where there is none; `prepend` puts the prompt in front of it, in
    one message (many templates take only one); `replace` drops it; `off` adds nothing.
    """
    if not prompt or mode == "off":
        return messages
    own = [message for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    if not own or mode == "replace":
        return [{"role": "system", "content": prompt}, *rest]
    if mode == "prepend":
        text = "\n\n".join([prompt, *(message["content"] for message in own)])
        return [{"role": "system", "content": text}, *rest]
    return messages


def text_prompt(fields: dict[str, Any], foreign: bool) -> Any:
    """One text. Another server may also take one list of token ids. Raises RequestError (400)."""
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if foreign and isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return prompt
    if not isinstance(prompt, str) or not prompt:
        text = "prompt must be a text, and not empty; lists of several texts or of tokens are not supported"
        raise RequestError(400, text, param="prompt")
    return prompt
