"""Tools that a client offers, and the calls that came of them before."""

import json

import pytest

from tests.web.forwarded import forward, sent
from tests.web.given import refused


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        (5, "tools[0]"),
        (None, "tools[0]"),
        ({}, "tools[0]"),
        ({"type": "function"}, "tools[0]"),
        ({"type": "function", "function": {}}, "tools[0]"),
        ({"type": "function", "function": {"name": ""}}, "tools[0].function.name"),
        ({"type": "function", "function": {"name": "f", "parameters": []}}, "tools[0].function.parameters"),
        ({"type": "function", "function": {"name": "f", "strict": "x"}}, "tools[0].function.strict"),
        ({"type": "custom", "custom": {"name": "f"}}, "tools[0].type"),
        ({"function": {"name": "f"}, "custom": {"name": "f"}}, "tools[0].custom"),
    ],
)
def test_a_tool_that_cannot_be_offered_is_refused_by_place(tool: object, param: str) -> None:
    with refused(400, param=param):
        forward({"tools": [tool]})


@pytest.mark.fault(59)
def test_of_tools_that_may_be_called_the_model_is_told_only_those() -> None:
    f, g = ({"type": "function", "function": {"name": name}} for name in "fg")

    def told(choice: object) -> object:
        return sent({"tools": [f, g], "tool_choice": choice}).get("tools")

    def allowed(mode: str, *tools: object) -> dict[str, object]:
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}

    assert (
        told("auto") == told("required") == told(allowed("required", f)) == [f, g]
    )  # what is required is enforced
    assert told(allowed("auto", g)) == [g]
    assert told(allowed("auto")) is None
    assert told("none") is None


@pytest.mark.parametrize(
    ("arguments", "parsed"),
    [
        ('{"a": 1}', {"a": 1}),
        ("{}", {}),
        ("", {}),
        (None, {}),
        ({"a": 1}, {"a": 1}),
        ("rm -rf {", "rm -rf {"),
        ("[" * 100_000, "[" * 100_000),
        ('{"a": ' + "9" * 5000 + "}", '{"a": ' + "9" * 5000 + "}"),
    ],
)
def test_arguments_of_past_calls_are_always_json_for_the_worker(arguments: object, parsed: object) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "run", "arguments": arguments}}
    (message,) = sent({"messages": [{"role": "assistant", "tool_calls": [call]}]})["messages"]
    (got,) = message["tool_calls"]
    assert json.loads(got["function"].pop("arguments")) == parsed
    assert got == {"id": "1", "type": "function", "function": {"name": "run"}}


def test_a_past_call_without_arguments_gets_none() -> None:
    (message,) = sent({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]})[
        "messages"
    ]
    assert message["tool_calls"] == [{"function": {"name": "f", "arguments": "{}"}}]
