"""Tool calls as models write them, and what is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mlx_lm.tool_parsers import glm47, json_tools, minicpm5, qwen3_coder

from draftd.engine.answers.tool_calls import is_whole, parse


def calls(text: str) -> list[dict[str, Any]] | None:
    return parse(json_tools.parse_tool_call, text, None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"a": "é"}, '{"a": "é"}'),
        ('{"a": 1}', '{"a": 1}'),  # the JSON of an object in place of the object
        ({}, "{}"),
        (None, "{}"),
        ("", "{}"),
    ],
)
def test_a_call_has_openais_form(arguments: Any, told: str) -> None:
    (call,) = calls(json.dumps({"name": "f", "arguments": arguments, "extra": 1})) or []
    assert (call["type"], call["function"]) == ("function", {"name": "f", "arguments": told})
    assert call["id"]


def test_a_call_may_lack_arguments_and_have_an_id_of_its_own() -> None:
    (call,) = calls('{"name": "f", "id": "call_7"}') or []
    assert (call["id"], call["function"]["arguments"]) == ("call_7", "{}")


def test_a_parser_may_find_several() -> None:
    made = calls('[{"name": "f"}, {"name": "g"}]') or []
    assert [call["function"]["name"] for call in made] == ["f", "g"]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "5", '"f"', "[]", "[5]", "{}", '{"arguments": {}}', '{"name": null}', '{"name": ""}',
        '{"name": 5}', '{"name": ["f"]}', '{"name": "f", "arguments": 5}', '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": "{"}', '{"name": "f", "arguments": "[1]"}', '[{"name": "f"}, {}]',
        '{"name": "f", "arguments": {"a": NaN}}', "[" * 100_000,
    ],
    ids=range(20),
)  # fmt: skip
def test_what_is_no_object_with_a_name_is_no_call(text: str) -> None:
    assert calls(text) is None


def test_an_error_of_any_parser_means_that_there_is_no_call() -> None:
    typed = [{"function": {"name": "f", "parameters": {"properties": {"n": {"type": "integer"}}}}}]
    text = "<function=f><parameter=n>{}</parameter></function>"
    assert parse(qwen3_coder.parse_tool_call, text.format("7"), typed)
    assert parse(qwen3_coder.parse_tool_call, text.format("inf"), typed) is None  # an OverflowError
    assert parse(qwen3_coder.parse_tool_call, "no function", typed) is None


@pytest.mark.fault(207)
@pytest.mark.parametrize("text", ["[1, 2]", '{"name": 5}', "a b<arg_key>p</arg_key><arg_value>1</arg_value>"])
def test_what_is_no_name_calls_nothing_but_a_tool_of_that_name(text: str) -> None:
    """GLM's parser takes whatever stands there for the name."""
    assert glm47.parse_tool_call(text, None)["name"]
    assert parse(glm47.parse_tool_call, text, None) is None
    offered = [{"type": "function", "function": {"name": "a b"}}, {"type": "custom"}]
    assert (parse(glm47.parse_tool_call, text, offered) is not None) == text.startswith("a b")


@pytest.mark.fault(207)
def test_an_argument_that_is_not_whole_is_not_left_out() -> None:
    """mlx_lm's parsers make a call without it."""
    glm = "look<arg_key>p</arg_key><arg_value>half"
    assert glm47.parse_tool_call(glm, None) == {"name": "look", "arguments": {}}
    minicpm = '"look"><param name="p">half'
    assert minicpm5.parse_tool_call(minicpm, None) == {"name": "look", "arguments": {}}
    assert not is_whole(glm)
    assert not is_whole(minicpm)
    assert not is_whole(f"{glm}</arg_value>")  # another argument could have come
    assert is_whole(f"{minicpm}</param>")
    assert is_whole("[" * 100_000)  # no call, but no error either
    assert is_whole('{"name": "write", "arguments": {"page": "<p>"}}')


@pytest.mark.fault(207)
def test_no_call_is_lost_where_a_parser_takes_one_of_several() -> None:
    two = "<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n<function=g>\n</function>"
    made = parse(qwen3_coder.parse_tool_call, two, None) or []
    assert [call["function"] for call in made] == [
        {"name": "f", "arguments": '{"a": "1"}'},
        {"name": "g", "arguments": "{}"},
    ]
    listed = '[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"a": 1}}]'
    names = [call["function"]["name"] for call in parse(glm47.parse_tool_call, listed, None) or []]
    assert names == ["f", "g"]
