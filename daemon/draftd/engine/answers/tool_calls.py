"""The tool calls in a model's text, in OpenAI's form. Pure."""

import json
import uuid
from collections.abc import Callable
from typing import Any

Parser = Callable[[str, Any], Any]  # mlx_lm's parser for a model: the text and the tools that were offered


def parse(parser: Parser, text: str, tools: Any) -> list[dict[str, Any]] | None:
    """Return the calls that `text` makes; None if it makes none, or one that is malformed.

    Models write malformed calls in every way, and each of mlx_lm's parsers has errors of its own for them.
    """
    try:
        made = parser(text, tools)
        calls = [_call(each) for each in (made if isinstance(made, list) else [made])]
    except Exception:
        return None
    return calls or None


def _call(made: Any) -> dict[str, Any]:
    """Raise ValueError, or another error, for what is no object with a name, or whose arguments are no object."""
    name, identifier = made["name"], made.get("id")
    if not isinstance(name, str) or not name:
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
