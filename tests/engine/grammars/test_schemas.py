"""Schemas as answers are held to them."""

from typing import Any

import pytest

from draftd.engine.grammars.schemas import MAX_DEPTH, MAX_INTEGER, closed, has_no_end, is_too_deep

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


LOOP = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
DEFS = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/a"} | DEFS,
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}} | DEFS,
        {"allOf": [{"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}, {"oneOf": [{"$ref": "#"}]}]},
        LOOP,
        {"type": ["object"], "properties": {"b": LOOP | {"properties": {"a": {"$ref": "#/properties/b"}}}}},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {"type": "array", "prefixItems": [{"type": "null"}, {"$ref": "#"}], "minItems": 2},
        {"$ref": "#/some~1where", "some/where": {"$ref": "#/some~1where"}},
    ],
)
def test_what_can_only_be_fitted_without_an_end_is_found(schema: Any) -> None:
    assert has_no_end(schema)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        LOOP | {"type": ["object", "null"]},
        LOOP | {"type": "string"},
        {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "array", "prefixItems": [{"type": "null"}], "items": {"$ref": "#"}, "minItems": 1},
        {"$ref": "#/a", "a": {"type": "null"}},
        {"$ref": "#/none"},
        {"$ref": "#anchor"},
        {"$ref": 5, "type": [], "anyOf": 3, "required": "a", "properties": [], "minItems": "x"},
        {"$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {}]}},
                            "required": ["next"]}}, "$ref": "#/$defs/node"},
    ],
)  # fmt: skip
def test_what_may_end_is_left_alone(schema: Any) -> None:
    assert not has_no_end(schema)


def test_depth_is_that_of_objects_and_lists() -> None:
    deep: Any = {"type": "null"}
    for level in range(MAX_DEPTH - 1):
        deep = {"a": [], "b": deep} if level % 2 else [1, deep]
    assert not is_too_deep(deep)
    assert is_too_deep([deep])
