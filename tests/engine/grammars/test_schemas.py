"""Schemas as answers are held to them."""

from typing import Any

import pytest

from draftd.engine.grammars.schemas import MAX_INTEGER, closed

A: dict[str, Any] = {"properties": {"a": {"type": "string"}}}
CLOSED = A | {"additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        (A, CLOSED),
        (A | {"additionalProperties": True}, A | {"additionalProperties": True}),
        ({"type": "object"}, {"type": "object"}),
        ({"items": A}, {"items": CLOSED}),
        ({"prefixItems": [A], "items": False}, {"prefixItems": [CLOSED], "items": False}),
        ({"anyOf": [A, {"type": "null"}]}, {"anyOf": [CLOSED, {"type": "null"}]}),
        ({"$defs": {"a": A}, "$ref": "#/$defs/a"}, {"$defs": {"a": CLOSED}, "$ref": "#/$defs/a"}),
        ({"properties": {"b": A}}, {"properties": {"b": CLOSED}, "additionalProperties": False}),
        (A | {"patternProperties": {}}, A | {"patternProperties": {}}),
        (A | {"oneOf": [A]}, A | {"oneOf": [CLOSED]}),
        ({"allOf": [A]}, {"allOf": [A]}),
        ({"properties": {"b": {"allOf": [A]}}}, {"properties": {"b": {"allOf": [A]}}}),
        (
            {"properties": {"allOf": A}},
            {"properties": {"allOf": A}},
        ),  # a name that looks like one: left alone
        (True, True),
        ({"type": "integer"}, {"type": "integer", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER}),
        (
            {"type": "integer", "exclusiveMinimum": 0},
            {"type": "integer", "exclusiveMinimum": 0, "maximum": MAX_INTEGER},
        ),
        ({"type": "integer", "minimum": 3, "maximum": 5}, {"type": "integer", "minimum": 3, "maximum": 5}),
        ({"type": "integer", "enum": [2**60]}, {"type": "integer", "enum": [2**60]}),
    ],
)
def test_what_may_be_there_is_what_is_named(schema: Any, made: Any) -> None:
    assert closed(schema) == made
