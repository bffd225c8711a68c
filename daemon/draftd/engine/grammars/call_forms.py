"""How models write calls of tools, as rules of a grammar. Pure.

mlx_lm names the parser that reads a model's calls; each stands for one way to write them. What surrounds the
arguments is given letter by letter, as the model's template shows it, so that it is drafted without a draft model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from draftd.engine.grammars.requested import Tool
from draftd.engine.grammars.spelling import Spelling, json_rule

NAME = "{name}"


@dataclass(frozen=True, slots=True)
class CallForm:
    """A call begins with the mark `start`; `rest` returns the symbols of what follows it, for one tool.

    `between` stands between two calls.
    """

    start: str
    between: str
    rest: Callable[[Tool, Spelling], str]


def _json_arguments(before: str, after: str) -> Callable[[Tool, Spelling], str]:
    """All arguments are one object."""

    def rest(tool: Tool, spelling: Spelling) -> str:
        parts = (
            spelling(before.replace(NAME, _escaped(tool.name))),
            json_rule(tool.parameters),
            spelling(after),
        )
        return " ".join(filter(None, parts))

    return rest


def _marked_arguments(
    before: str, key: str, end: str, after: str, *, types: bool
) -> Callable[[Tool, Spelling], str]:
    """Each argument stands by itself: texts as they are, everything else as JSON.

    With `types` one whose schema names no type is read as a text.
    """

    def value(schema: Any, spelling: Spelling) -> str:
        kind = schema.get("type") if isinstance(schema, dict) else None
        if kind != "string" and not (types and kind is None):
            return f"{json_rule(schema)} {spelling(end)}"
        if choices := schema.get("enum"):
            return f"({' | '.join(spelling(str(choice)) for choice in choices)}) {spelling(end)}"
        return spelling.up_to(end)

    def rest(tool: Tool, spelling: Spelling) -> str:
        required = tool.parameters.get("required") or []
        parts = [spelling(before.replace(NAME, tool.name))]
        for name, schema in (tool.parameters.get("properties") or {}).items():
            argument = f"{spelling(key.replace(NAME, name))} {value(schema, spelling)}"
            parts.append(argument if name in required else f"({argument})?")
        return " ".join([*parts, spelling(after)])

    return rest


def _escaped(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)[1:-1]


_GLM_ARGUMENT = f"\n<arg_key>{NAME}</arg_key>\n<arg_value>"
_QWEN_CALL, _QWEN_ARGUMENT = f"\n<function={NAME}>", f"\n<parameter={NAME}>\n"
_JSON_CALL = f'\n{{"name": "{NAME}", "arguments": '

CALL_FORMS: dict[str, CallForm] = {
    "json_tools": CallForm("<tool_call>", "\n", _json_arguments(_JSON_CALL, "}\n</tool_call>")),
    "mistral": CallForm("[TOOL_CALLS]", "", _json_arguments(f"{NAME}[ARGS]", "")),
    "qwen3_coder": CallForm(
        "<tool_call>",
        "\n",
        _marked_arguments(
            _QWEN_CALL, _QWEN_ARGUMENT, "\n</parameter>", "\n</function>\n</tool_call>", types=True
        ),
    ),
    "glm47": CallForm(
        "<tool_call>",
        "\n",
        _marked_arguments(NAME, _GLM_ARGUMENT, "</arg_value>", "\n</tool_call>", types=False),
    ),
}
