"""How models write calls of tools, as rules of a grammar. Pure.

mlx_lm names the parser that reads a model's calls; each stands for one way to write them. What surrounds the
arguments is given letter by letter, as the model's template shows it, so that it is drafted without a draft model.

Two forms are not here: those of Gemma (`function_gemma`, `gemma4`), whose parsers split the arguments at commas and
braces wherever they stand, so that not every value can be written at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from draftd.engine.grammars.requested import Tool
from draftd.engine.grammars.spelling import Spelling, json_rule

NAME, TYPE = "{name}", "{type}"
COUNT = "{count}"  # of the call in its answer: models count from 0 or from 1, and parsers do not mind
Rest = Callable[[Tool, Spelling], str]


@dataclass(frozen=True, slots=True)
class CallForm:
    """Calls begin with the mark `start`; `rest` returns the symbols of one call, for one tool.

    `between` stands between two calls, `end` behind the last one.
    """

    start: str
    rest: Rest
    between: str
    end: str = ""

    def calls(self, spelling: Spelling, *, one: bool) -> str:
        """Return the symbols of all calls behind `start`; each is the rule `call`."""
        more = "" if one else f" ({spelling(self.between)} call)*"
        return f"call{more} {spelling(self.end)}".rstrip()


def _json_arguments(before: str, after: str) -> Rest:
    """All arguments are one object."""

    def rest(tool: Tool, spelling: Spelling) -> str:
        if tool.grammar:
            key = json.dumps(tool.argument, ensure_ascii=False)
            arguments = f"{spelling(f'{{{key}: ')} {spelling.in_json(tool.grammar)} {spelling('}')}"
        else:
            arguments = json_rule(tool.parameters)
        parts = (*_counted(before.replace(NAME, _escaped(tool.name)), spelling), arguments, spelling(after))
        return " ".join(filter(None, parts))

    return rest


@dataclass(frozen=True, slots=True)
class Marked:
    """Each argument stands by itself, between `key` and `end`: texts as they are, everything else as JSON.

    With `untyped_is_text` one whose schema names no type is read as a text, with `unions_are_texts` one that may be
    a text among others, with `all_json` none is. `escape` makes a name fit to stand in a mark.
    """

    before: str
    key: str
    end: str
    after: str
    untyped_is_text: bool = False
    unions_are_texts: bool = False
    all_json: bool = False
    escape: Callable[[str], str] = str

    def __call__(self, tool: Tool, spelling: Spelling) -> str:
        """Return the symbols of a call."""
        required = tool.parameters.get("required") or []
        parts = _counted(self.before.replace(NAME, self.escape(tool.name)), spelling)
        for name, schema in (tool.parameters.get("properties") or {}).items():
            key = self.key.replace(NAME, self.escape(name)).replace(TYPE, _type_of(schema))
            argument = f"{spelling(key)} {self._value(tool, schema, spelling)}"
            parts.append(argument if name in required else f"({argument})?")
        return " ".join([*parts, spelling(self.after)])

    def _value(self, tool: Tool, schema: Any, spelling: Spelling) -> str:
        if self.all_json or not self._is_text(schema):
            return f"{_json_value(tool, schema, spelling)} {spelling(self.end)}"
        if tool.grammar:
            return spelling.in_marks(tool.grammar, self.end)
        if choices := schema.get("enum"):
            return f"({' | '.join(spelling(str(choice)) for choice in choices)}) {spelling(self.end)}"
        return spelling.up_to(self.end)

    def _is_text(self, schema: Any) -> bool:
        if not isinstance(schema, dict):
            return False
        kinds = _kinds(schema)
        if self.unions_are_texts and "string" in kinds:
            return True
        return schema.get("type") == "string" or (self.untyped_is_text and not kinds)


def _pythonic(tool: Tool, spelling: Spelling) -> str:
    """A function with its arguments by name, which are JSON: their parser takes JSON's names for Python's."""
    required = tool.parameters.get("required") or []
    arguments: Mapping[str, Any] = tool.parameters.get("properties") or {}
    made = [
        (f"{spelling(f'{name}=')} {_json_value(tool, schema, spelling)}", name in required)
        for name, schema in arguments.items()
    ]
    return " ".join(filter(None, (spelling(f"{tool.name}("), _listed(made, spelling(", ")), spelling(")"))))


def _json_value(tool: Tool, schema: Any, spelling: Spelling) -> str:
    return spelling.in_json(tool.grammar) if tool.grammar else json_rule(schema)


def _listed(parts: Sequence[tuple[str, bool]], comma: str) -> str:
    """Return the symbols of a list with commas between; each of its parts has to be there or not."""
    ways = []
    for place, (first, needed) in enumerate(parts):
        rest = (f"{comma} {part}" if must else f"({comma} {part})?" for part, must in parts[place + 1 :])
        ways.append(" ".join([first, *rest]))
        if needed:
            return f"({' | '.join(ways)})"
    return f"({' | '.join(ways)})?" if ways else ""


def _counted(text: str, spelling: Spelling) -> list[str]:
    """Return the symbols of a text in which a number may stand."""
    before, count, after = text.partition(COUNT)
    return [spelling(before), *(["/[0-9]{1,3}/", spelling(after)] if count else [])]


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """Return the types that a schema names."""
    kind = schema.get("type")
    kinds = {kind} if isinstance(kind, str) else set(kind or ())
    ways = [way for key in ("anyOf", "oneOf") for way in schema.get(key) or () if isinstance(way, dict)]
    return kinds.union(*map(_kinds, ways))


def _type_of(schema: Any) -> str:
    kind = schema.get("type") if isinstance(schema, dict) else None
    return kind if isinstance(kind, str) else "object"


def _escaped(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)[1:-1]


def _in_attribute(name: str) -> str:
    return name.replace("&", "&amp;").replace('"', "&quot;")


_JSON_CALL = f'\n{{"name": "{NAME}", "arguments": '
_KIMI_CALL = f"<|tool_call_begin|>functions.{NAME}:{COUNT}<|tool_call_argument_begin|>"
_KIMI_3_CALL = f'<|open|>call tool="{NAME}" index="{COUNT}"<|sep|>'
_KIMI_3_ARGUMENT = f'<|open|>argument key="{NAME}" type="{TYPE}"<|sep|>'

CALL_FORMS: dict[str, CallForm] = {
    "json_tools": CallForm("<tool_call>", _json_arguments(_JSON_CALL, "}\n</tool_call>"), "\n<tool_call>"),
    "mistral": CallForm("[TOOL_CALLS]", _json_arguments(f"{NAME}[ARGS]", ""), "[TOOL_CALLS]"),
    "qwen3_coder": CallForm(
        "<tool_call>",
        Marked(
            f"\n<function={NAME}>",
            f"\n<parameter={NAME}>\n",
            "\n</parameter>",
            "\n</function>\n</tool_call>",
            untyped_is_text=True,
        ),
        "\n<tool_call>",
    ),
    "glm47": CallForm(
        "<tool_call>",
        Marked(NAME, f"\n<arg_key>{NAME}</arg_key>\n<arg_value>", "</arg_value>", "\n</tool_call>"),
        "\n<tool_call>",
    ),
    "longcat": CallForm(
        "<longcat_tool_call>",
        Marked(
            NAME,
            f"\n<longcat_arg_key>{NAME}</longcat_arg_key>\n<longcat_arg_value>",
            "</longcat_arg_value>",
            "\n</longcat_tool_call>",
        ),
        "\n<longcat_tool_call>",
    ),
    "kimi_k2": CallForm(
        "<|tool_calls_section_begin|>",
        _json_arguments(_KIMI_CALL, "<|tool_call_end|>"),
        "",
        "<|tool_calls_section_end|>",
    ),
    "kimi_k3": CallForm(
        "<|open|>tools<|sep|>",
        Marked(
            _KIMI_3_CALL,
            _KIMI_3_ARGUMENT,
            "<|close|>argument<|sep|>",
            "<|close|>call<|sep|>",
            escape=_in_attribute,
        ),
        "",
        "<|close|>tools<|sep|>",
    ),
    "minimax_m2": CallForm(
        "<minimax:tool_call>",
        Marked(
            f'\n<invoke name="{NAME}">',
            f'\n<parameter name="{NAME}">',
            "</parameter>",
            "\n</invoke>",
            untyped_is_text=True,
            unions_are_texts=True,
        ),
        "",
        "\n</minimax:tool_call>",
    ),
    "muse_spark": CallForm(
        "<atem:function_calls>",
        Marked(
            f'\n<atem:invoke name="{NAME}">',
            f'\n<atem:parameter name="{NAME}">',
            "</atem:parameter>",
            "\n</atem:invoke>",
            all_json=True,
        ),
        "",
        "\n</atem:function_calls>",
    ),
    "minicpm5": CallForm(
        "<function name=",
        Marked(
            f'"{NAME}">',
            f'<param name="{NAME}">',
            "</param>",
            "</function>",
            untyped_is_text=True,
            unions_are_texts=True,
        ),
        "<function name=",
    ),
    "pythonic": CallForm("<|tool_call_start|>[", _pythonic, ", ", "]<|tool_call_end|>"),
}
