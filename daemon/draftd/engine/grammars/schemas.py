"""JSON schemas as answers are held to them. Pure."""

from __future__ import annotations

from typing import Any

_SCHEMAS = ("properties", "$defs", "definitions")  # objects of schemas
_LISTS = ("prefixItems", "anyOf", "oneOf")
_ONE = ("items",)
MAX_INTEGER = 2**53 - 1  # beyond it readers that know floating-point numbers only are wrong


def closed(schema: Any) -> Any:
    """Return a schema whose objects have the properties that it names, and whose integers every JSON reader takes.

    Unless the schema says so, others may be there by JSON schema's own rules, and integers have any number of
    digits: small models then write them until their answer is full. What fits the closed schema fits the open one.
    A schema with `allOf` stays as it is: there one part names what is another one's other property.
    """
    return schema if _has_all_of(schema) else _closed(schema)


def _closed(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    for key in _SCHEMAS:
        if isinstance(made.get(key), dict):
            made[key] = {name: _closed(part) for name, part in made[key].items()}
    for key in _LISTS:
        if isinstance(made.get(key), list):
            made[key] = [_closed(part) for part in made[key]]
    for key in _ONE:
        if key in made:
            made[key] = _closed(made[key])
    if "properties" in made and not {"patternProperties", *_LISTS[1:]} & made.keys():
        made.setdefault("additionalProperties", False)
    if made.get("type") == "integer" and "enum" not in made:
        if "exclusiveMinimum" not in made:
            made.setdefault("minimum", -MAX_INTEGER)
        if "exclusiveMaximum" not in made:
            made.setdefault("maximum", MAX_INTEGER)
    return made


def _has_all_of(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(_has_all_of(part) for part in schema)
    return isinstance(schema, dict) and (
        "allOf" in schema or any(_has_all_of(part) for part in schema.values())
    )
