"""Tools and the choice among them, from the form of OpenAI's responses to that of chat completions. Pure.

A custom tool takes one text, which usually has to follow a grammar. Chat completions know only functions, so it is
offered as a function whose one argument is the text; its description holds the grammar, and our engine enforces it.
Tools of other kinds, which OpenAI's servers run or which come in groups, are left out: Codex sends them with every
request. Those that no agent sends unasked are refused: whoever names one counts on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from draftd.web.dialects.places import Place, refusal, string_in

CUSTOM = "custom"
_INPUT = "input"
_PARAMETERS = {
    "type": "object",
    "properties": {_INPUT: {"type": "string"}},
    "required": [_INPUT],
    "additionalProperties": False,
}
_OF_FUNCTIONS = ("description", "parameters", "strict")
_KINDS = ("function", CUSTOM)
_REFUSED = ("mcp", "file_search", "code_interpreter", "computer", "computer_use_preview")
Fields = dict[str, Any]


def offered(tools: Iterable[Fields]) -> list[Fields]:
    """The tools that the model is told of."""
    return [tool for tool in tools if tool.get("type") in _KINDS]


def chat_tools(tools: Iterable[Fields]) -> list[Fields]:
    """The functions of a chat. Raises RequestError (400)."""
    made = []
    for number, tool in enumerate(tools):
        place: Place = ("tools", number)
        kind = string_in(tool, "type", place)
        if kind in _REFUSED:
            raise refusal(
                (place, "type"), f"must not be {kind}: only OpenAI's servers have that", "unsupported_value"
            )
        if kind in _KINDS:
            made.append({"type": "function", "function": _function(tool, place)})
    return made


def grammars(tools: Iterable[Fields]) -> Fields:
    """The grammars of custom tools, by their names. Raises RequestError (400)."""
    return {
        tool["name"]: {key: form[key] for key in ("syntax", "definition")}
        for number, tool in enumerate(tools)
        if tool.get("type") == CUSTOM and (form := _form(tool, (("tools", number), "format")))
    }


def _form(tool: Fields, place: Place) -> Fields | None:
    form = tool.get("format") or {"type": "text"}
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "text":
        return None
    if kind != "grammar" or form.get("syntax") not in ("lark", "regex"):
        raise refusal(place, "must be text, or a grammar with the syntax lark or regex")
    string_in(form, "definition", place, empty=True)
    return dict(form)


def _function(tool: Fields, place: Place) -> Fields:
    name = string_in(tool, "name", place)
    if tool["type"] == CUSTOM:
        return {"name": name, "description": _described(tool, place), "parameters": _PARAMETERS}
    more = {key: tool[key] for key in _OF_FUNCTIONS if tool.get(key) is not None}
    return {"name": name, **more}


def _described(tool: Fields, place: Place) -> str:
    given, form = tool.get("description"), tool.get("format")
    if not isinstance(given, str | None):
        raise refusal((place, "description"), "must be a string")
    grammar = form.get("definition") if isinstance(form, dict) else None
    told = f"The input follows this grammar:\n{grammar}" if isinstance(grammar, str) else None
    return "\n\n".join(text for text in (given, told) if text is not None)


def chat_choice(choice: str | Fields) -> str | Fields:
    """The choice of a tool as a chat completion has it. Raises RequestError (400)."""
    if isinstance(choice, str):
        return choice
    if choice.get("type") in _KINDS:
        return _chosen(choice, "tool_choice")
    tools = choice.get("tools")
    if choice.get("type") != "allowed_tools" or not isinstance(tools, list):
        says = "must be auto, none, required, a function, a custom tool, or allowed_tools"
        raise refusal("tool_choice", says, "unsupported_value")
    known = [
        _chosen(tool, (("tool_choice", "tools"), number))
        for number, tool in enumerate(tools)
        if isinstance(tool, dict) and tool.get("type") in _KINDS
    ]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode"), "tools": known}}


def _chosen(tool: Fields, place: Place) -> Fields:
    return {"type": "function", "function": {"name": string_in(tool, "name", place)}}


def custom_arguments(text: str) -> str:
    """The arguments of the function that stands for a custom tool."""
    return json.dumps({_INPUT: text})


def custom_input(arguments: str) -> str:
    """The text for a custom tool; arguments that are of another form are passed on as they are."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    text = value.get(_INPUT) if isinstance(value, Mapping) else None
    return text if isinstance(text, str) else arguments
