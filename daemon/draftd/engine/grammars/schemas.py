"""JSON schemas as answers are held to them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

_SCHEMAS = ("properties", "$defs", "definitions")  # objects of schemas
_LISTS = ("prefixItems", "anyOf", "oneOf")
_ONE = ("items",)
MAX_DEPTH = 100  # objects and lists within each other: JSON readers give up soon after
MAX_LEAST_ITEMS = 10_000  # llguidance gives up within a list of 50,000 that are forced
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


def is_too_deep(schema: Any) -> bool:
    """Whether more than MAX_DEPTH objects and lists are within each other."""
    level = [schema]
    for _ in range(MAX_DEPTH):
        inner = (part.values() if isinstance(part, dict) else part for part in level if part)
        level = [value for part in inner for value in part if isinstance(value, dict | list)]
    return bool(level)


def has_no_end(schema: Any) -> bool:
    """Whether a part of a schema needs a value that holds such a value again, and so on for ever."""
    parts = list(_parts(schema))  # each once
    finite: set[int] = set()
    grows = True
    while grows:
        before = len(finite)
        # What is within a part comes after it, so that backwards one round is enough for all but references.
        finite.update(id(part) for part in reversed(parts) if _is_finite(part, schema, finite))
        grows = len(finite) > before
    return len(finite) < len(parts)


def wants_too_many(schema: Any) -> bool:
    """Whether a part of a schema wants more than MAX_LEAST_ITEMS items in a list."""
    return any(
        isinstance(least := part.get("minItems"), int) and least > MAX_LEAST_ITEMS for part in _parts(schema)
    )


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    waiting, seen = [schema], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict) and id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting.append(_referred(part.get("$ref"), schema))
            for key in (*_SCHEMAS, *_LISTS, "allOf", *_ONE):
                inner = part.get(key)
                waiting += inner.values() if key in _SCHEMAS and isinstance(inner, dict) else ()
                waiting += inner if isinstance(inner, list) else [inner] if key in _ONE else ()


def _is_finite(part: dict[str, Any], whole: Any, finite: Set[int]) -> bool:
    """Whether a finite value fits, by what is known of the parts within it."""

    def known(inner: Any) -> bool:
        return not isinstance(inner, dict) or id(inner) in finite

    if "$ref" in part and not known(_referred(part["$ref"], whole)):
        return False
    if not all(map(known, _list(part, "allOf"))):
        return False
    if any((choices := _list(part, key)) and not any(map(known, choices)) for key in ("anyOf", "oneOf")):
        return False
    kinds = part["type"] if isinstance(part.get("type"), list) else [part.get("type")]
    return any(all(map(known, _needed(part, kind))) for kind in kinds) or not kinds


def _needed(part: dict[str, Any], kind: Any) -> Iterator[Any]:
    """What every value of this kind has in it."""
    properties, least = part.get("properties"), part.get("minItems")
    if kind == "object" and isinstance(properties, dict):
        yield from (properties.get(name) for name in _list(part, "required") if isinstance(name, str))
    if kind == "array" and isinstance(least, int):
        first = _list(part, "prefixItems")[:least]
        yield from first
        if least > len(first):
            yield part.get("items")


def _list(part: dict[str, Any], key: str) -> list[Any]:
    found = part.get(key)
    return found if isinstance(found, list) else []


def _referred(reference: Any, whole: Any) -> Any:
    """What a reference within the schema leads to; None for any other, of which llguidance says what is wrong."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    found = whole
    for step in reference.removeprefix("#").split("/")[1:]:
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found
