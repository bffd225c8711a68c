"""What a request says about the form of its answer."""

from typing import Any

import pytest

from draftd.engine.grammars.requested import ANY_OBJECT, Requested, Tool, requested
from draftd.engine.refusals import RefusedRequestError

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}


def offered(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **more}}


READ, WRITE = Tool("read", SCHEMA), Tool("write", SCHEMA)
TOOLS = [offered("read"), offered("write")]
NAMED = {"type": "function", "function": {"name": "write"}}


def by_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


@pytest.mark.parametrize(
    ("body", "form"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": None, "tools": None, "tool_choice": None}, None),
        ({"tools": TOOLS}, None),
        ({"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True}, None),
        ({"tools": [offered("read", strict=True)], "tool_choice": "none"}, None),
        ({"tools": TOOLS, "parallel_tool_calls": False}, None),
        ({"response_format": {"type": "json_object"}}, Requested(ANY_OBJECT)),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, Requested(SCHEMA)),
        ({"response_format": by_schema(SCHEMA)}, Requested(SCHEMA)),
        ({"tools": TOOLS, "tool_choice": "required"}, Requested(None, (READ, WRITE), must_call=True)),
        ({"tools": TOOLS, "tool_choice": NAMED}, Requested(None, (WRITE,), must_call=True)),
        (
            {
                "tools": TOOLS,
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "required", "tools": [NAMED]},
                },
            },
            Requested(None, (WRITE,), must_call=True),
        ),
        (
            {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
            Requested(None, (READ, WRITE), must_call=True, one_call=True),
        ),
        ({"tools": [offered("read", strict=True)]}, Requested(None, (Tool("read", SCHEMA, strict=True),))),
        (
            {"tools": [{"type": "function", "function": {"name": "now"}}], "tool_choice": "required"},
            Requested(None, (Tool("now"),), must_call=True),
        ),
        ({"tools": TOOLS, "response_format": by_schema(SCHEMA)}, Requested(SCHEMA, (READ, WRITE))),
    ],
)
def test_what_is_said_is_what_is_asked_for(body: dict[str, Any], form: Requested | None) -> None:
    assert requested(body) == form


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "json_object", "schema": 3}}, "response_format.schema"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"response_format": {"type": "text", "json_schema": {"schema": SCHEMA}}},
            "response_format.json_schema",
        ),
        ({"response_format": {"type": "text", "schema": SCHEMA}}, "response_format.schema"),
        (
            {"response_format": {"type": "json_object", "json_schema": {"schema": SCHEMA}}},
            "response_format.json_schema",
        ),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "rm"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        (
            {
                "tools": TOOLS,
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}},
            },
            "tool_choice",
        ),
        ({"tools": [3], "tool_choice": "required"}, "tools[0]"),
        ({"tools": [offered("")], "tool_choice": "required"}, "tools[0].function.name"),
        ({"tools": [offered("read", parameters=[])]}, "tools[0].function.parameters"),
    ],
)
def test_what_is_no_form_is_refused_by_its_place(body: dict[str, Any], param: str) -> None:
    with pytest.raises(RefusedRequestError) as refused:
        requested(body)
    assert refused.value.param == param
