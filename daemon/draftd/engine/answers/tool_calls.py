"""The tool calls in a model's text, in OpenAI's form. Pure."""

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

Parser = Callable[[str, Any], Any]  # mlx_lm's parser for a model: the text and the tools that were offered

_NAME = re.compile(r"[^\W\d][\w.:/-]*")
_FUNCTION = re.compile(r"<function=.*?</function>", re.DOTALL)
_TAG = re.compile(r"<(/?)([A-Za-z_][\w:.-]*)")


def parse(parser: Parser, text: str, tools: Any) -> list[dict[str, Any]] | None:
    """Return the calls that `text` makes; None if it makes none, or one that is malformed.

    Models write malformed calls in every way, and each of mlx_lm's parsers has errors of its own for them.
    Some take anything for the name of a tool.
    """
    try:
        made = parser(text, tools)
        if isinstance(made, dict) and (several := _several(text)):
            made = [parser(each, tools) for each in several]
        offered = {(tool.get("function") or {}).get("name") for tool in tools or ()}
        calls = [_call(each, offered) for each in (made if isinstance(made, list) else [made])]
    except Exception:
        return None
    return calls or None


def is_whole(text: str) -> bool:
    """Return whether no argument is open, or may be missing, in a call that the model ended without its mark.

    Some of mlx_lm's parsers would leave it out.
    """
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        if "<arg_key>" in text:  # nothing encloses the arguments, so that more could have come
            return False
        tags = Counter((name, not closes) for closes, name in _TAG.findall(text))
        return not any(opens and count > tags[name, False] for (name, opens), count in tags.items())
    return True


def _several(text: str) -> list[str]:
    """Return the texts of the calls where there are more than one. Some of mlx_lm's parsers take the first of a
    list, or make a single call of two functions, with the arguments of both.
    """
    functions = _FUNCTION.findall(text)
    if len(functions) > 1 and not _FUNCTION.sub("", text).strip():
        return functions
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [json.dumps(each) for each in listed] if isinstance(listed, list) and len(listed) > 1 else []


def _call(made: Any, offered: set[Any]) -> dict[str, Any]:
    """Raise ValueError, or another error, for what is no object with a name, or whose arguments are no object."""
    name, identifier = made["name"], made.get("id")
    if name not in offered and not _NAME.fullmatch(name):
        raise ValueError("a call without a name")
    identifier = identifier if isinstance(identifier, str) and identifier else str(uuid.uuid4())
    function = {"name": name, "arguments": _arguments(made.get("arguments"))}
    return {"id": identifier, "type": "function", "function": function}


def _arguments(arguments: Any) -> str:
    """Return the arguments as JSON, whether the model wrote an object, the JSON of one, or nothing."""
    if isinstance(arguments, str) and arguments:
        arguments = json.loads(arguments)
    if not isinstance(arguments or {}, dict):
        raise TypeError("arguments that are no object")
    return json.dumps(arguments or {}, ensure_ascii=False, allow_nan=False)
