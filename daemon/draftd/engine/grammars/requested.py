"""What a request says about the form of its answer. Pure.

`response_format` gives the content a schema, `tool_choice` asks for calls, and `strict` holds their arguments to
their schemas. Everything else leaves the model free, and then there is no grammar at all. (That there is one call
at most needs none: see `answers.answer_text`. A grammar knows of it all the same, so that its answer is whole.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from draftd.engine.grammars.custom import TextGrammar
from draftd.engine.refusals import RefusedRequestError
from draftd.protocol import GRAMMARS_FIELD

ANY_OBJECT: dict[str, Any] = {"type": "object"}
_SCHEMAS = {"json_schema": "json_schema", "json_object": "schema"}  # the types, and where their schemas stand


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that may be called. `strict`: its arguments fit `parameters`, a JSON schema, or the request fails.

    With a `grammar` its one argument is a text of that form.
    """

    name: str
    parameters: dict[str, Any] = field(default_factory=lambda: ANY_OBJECT)
    strict: bool = False
    grammar: TextGrammar | None = None

    @property
    def argument(self) -> str:
        """The name of the first argument; of the only one, where there is a grammar."""
        return next(iter(self.parameters.get("properties") or {}), "")


@dataclass(frozen=True, slots=True)
class Requested:
    """The form of an answer: content by `schema` (None: any text), or calls of `tools`.

    With `must_call` nothing but calls is an answer; with `one_call` there is one at most.
    """

    schema: dict[str, Any] | None = None
    tools: tuple[Tool, ...] = ()
    must_call: bool = False
    one_call: bool = False


def requested(body: Mapping[str, Any]) -> Requested | None:
    """Return the form that a request for a chat asks for; None if any will do. Raise RefusedRequestError."""
    schema = _schema(body.get("response_format"))
    grammars = _grammars(body.get(GRAMMARS_FIELD))
    tools = tuple(_tool(tool, place, grammars) for place, tool in enumerate(body.get("tools") or []))
    mode, tools = _chosen(body.get("tool_choice"), tools)
    one_call = body.get("parallel_tool_calls") is False
    if mode == "required":
        return Requested(None, tools, True, one_call)
    if mode == "none":
        tools = ()
    if schema is None and not any(tool.strict or tool.grammar for tool in tools):
        return None
    return Requested(schema, tools, False, one_call)


def _schema(wanted: Any) -> dict[str, Any] | None:
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("text", *_SCHEMAS):
        raise RefusedRequestError(
            "response_format must be an object with the type text, json_object or json_schema",
            param="response_format",
        )
    for owner, name in _SCHEMAS.items():
        if kind != owner and wanted.get(name) is not None:
            where = f"response_format.{name}"
            raise RefusedRequestError(f"{where} needs the type {owner}", param=where)
    if kind == "json_object":
        return _object(wanted.get("schema", ANY_OBJECT), "response_format.schema")
    if kind == "json_schema":
        described = _object(wanted.get("json_schema"), "response_format.json_schema")
        return _object(described.get("schema"), "response_format.json_schema.schema")
    return None


def _grammars(given: Any) -> dict[str, TextGrammar]:
    """Return the grammars of texts, by the names of the tools that take them."""
    return {
        name: TextGrammar(one["syntax"], one["definition"])
        for name, one in _object({} if given is None else given, GRAMMARS_FIELD).items()
    }


def _tool(tool: Any, place: int, grammars: Mapping[str, TextGrammar]) -> Tool:
    where = f"tools[{place}]"
    function = _object(_object(tool, where).get("function"), f"{where}.function")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise RefusedRequestError(f"{where}.function.name must be a string", param=f"{where}.function.name")
    parameters = function.get("parameters")
    if parameters is None:
        parameters = ANY_OBJECT
    parameters = _object(parameters, f"{where}.function.parameters")
    made = Tool(name, parameters, bool(function.get("strict")), grammars.get(name))
    if made.grammar and len(parameters.get("properties") or {}) != 1:
        raise RefusedRequestError(
            f"{GRAMMARS_FIELD}.{name} needs a function with one argument", param=GRAMMARS_FIELD
        )
    return made


def _chosen(choice: Any, tools: tuple[Tool, ...]) -> tuple[str, tuple[Tool, ...]]:
    """Return `auto`, `none` or `required`, and the tools that are left."""
    if choice is None:
        return "auto", tools
    if choice in ("auto", "none", "required"):
        return _with_tools(choice, tools), tools
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "function":
        return "required", _named([choice], tools)
    if kind == "allowed_tools":
        allowed = _object(choice.get("allowed_tools"), "tool_choice.allowed_tools")
        mode = allowed.get("mode")
        if mode not in ("auto", "required") or not isinstance(allowed.get("tools"), list):
            raise RefusedRequestError(
                "tool_choice.allowed_tools needs the mode auto or required, and a list of tools",
                param="tool_choice",
            )
        named = _named(allowed["tools"], tools)
        return _with_tools(mode, named), named
    raise RefusedRequestError(
        "tool_choice must be none, auto, required, or an object that names functions", param="tool_choice"
    )


def _with_tools(mode: str, tools: tuple[Tool, ...]) -> str:
    if mode == "required" and not tools:
        raise RefusedRequestError("tool_choice required needs tools", param="tool_choice")
    return mode


def _named(choices: list[Any], tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    names = [
        _object(_object(each, "tool_choice").get("function"), "tool_choice.function").get("name")
        for each in choices
    ]
    if unknown := [name for name in names if name not in {tool.name for tool in tools}]:
        raise RefusedRequestError(
            f"tool_choice names {unknown[0]!r}, and tools has no such tool", param="tool_choice"
        )
    return tuple(tool for tool in tools if tool.name in names)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RefusedRequestError(f"{where} must be an object", param=where)
    return value
