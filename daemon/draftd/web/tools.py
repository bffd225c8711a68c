"""The tools that a request offers, and the calls of them that it repeats. Pure."""

from __future__ import annotations

from typing import Any

from draftd.errors import RequestError
from draftd.web import json_codec
from draftd.web.dialects import fields as tables


def checked_tool(tool: dict[str, Any], place: str, foreign: bool) -> dict[str, Any]:
    """A tool, checked; another server, a `foreign` one, may know more kinds. Raises RequestError (400)."""
    made = tables.TOOL.checked(tool, f"{place}.", foreign=foreign)
    if "function" in made:
        made["function"] = tables.FUNCTION.checked(made["function"], f"{place}.function.", foreign=foreign)
    if not foreign and "name" not in made.get("function", {}):
        raise RequestError(400, f"{place} must have a function with a name", param=place)
    return made


def offered(tools: list[dict[str, Any]], choice: Any) -> list[dict[str, Any]]:
    """The tools that the model is told about: which of them it calls is up to it, unless it has to call one."""
    if choice == "none":
        return []
    allowed = choice.get("allowed_tools") if isinstance(choice, dict) else None
    if not isinstance(allowed, dict) or allowed.get("mode") != "auto":
        return tools
    named = [one.get("function") for one in allowed.get("tools") or [] if isinstance(one, dict)]
    names = [function.get("name") for function in named if isinstance(function, dict)]
    return [tool for tool in tools if tool["function"]["name"] in names]


def past_calls(calls: Any, place: str) -> list[dict[str, Any]]:
    """mlx_lm.server parses the arguments of past calls; where they are not JSON, they become one JSON string."""
    if not isinstance(calls, list):
        raise RequestError(400, f"{place} must be a list", param=place)
    made = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RequestError(400, f"{place}: each call needs a function with a name", param=place)
        arguments = json_codec.as_json(function.get("arguments") or "{}")
        made.append({**call, "function": {**function, "arguments": arguments}})
    return made
