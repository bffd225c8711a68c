"""Schemas of many kinds, and questions that go with them."""

import json
from pathlib import Path
from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "maxLength": 24}
OPENCODE_TOOLS: dict[str, Schema] = json.loads(Path(__file__).with_name("opencode_tools.json").read_text())
"""The parameters of the tools that OpenCode 1.18.33 offers, without their descriptions."""

LONG_KEYS: Schema = {
    "type": "object",
    "properties": {
        name: {"type": "boolean"}
        for name in (
            "customer_has_accepted_the_terms_of_service",
            "newsletter_subscription_is_active",
            "billing_address_equals_shipping_address",
            "preferred_contact_method_is_electronic_mail",
            "account_was_verified_by_a_second_factor",
        )
    },
    "additionalProperties": False,
}
LONG_KEYS["required"] = list(LONG_KEYS["properties"])


def object_of(required: Schema, optional: Schema | None = None, **more: Any) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
        **more,
    }


def list_of(items: Schema, least: int = 0, most: int = 3) -> Schema:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


PERSON = object_of({"name": TEXT, "age": {"type": "integer", "minimum": 0, "maximum": 130}})
SCHEMAS: dict[str, Schema] = {
    "long keys": LONG_KEYS,
    "a person": PERSON,
    "nothing has to be there": object_of({}, {"a": TEXT, "b": {"type": "integer"}}),
    "an object in an object": object_of({"person": PERSON, "city": TEXT}),
    "a list of objects": object_of({"people": list_of(PERSON, 1)}),
    "a list of lists": object_of(
        {"rows": list_of(list_of({"type": "integer", "minimum": 0, "maximum": 99}, 1))}
    ),
    "a choice": object_of({"colour": {"enum": ["red", "green", "blue"]}}),
    "a choice of many kinds": object_of({"value": {"enum": ["one", 2, None, True]}}),
    "a constant": object_of({"version": {"const": "1.0"}, "name": TEXT}),
    "true or false": object_of({"yes": {"type": "boolean"}, "sure": {"type": "boolean"}}),
    "null": object_of({"nothing": {"type": "null"}}),
    "a number": object_of({"price": {"type": "number", "minimum": 0, "maximum": 1000, "multipleOf": 0.01}}),
    "a bounded number": object_of(
        {"share": {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.001}}
    ),
    "a text or nothing": object_of({"nick": {"type": ["string", "null"], "maxLength": 10}}),
    "one of two": object_of({"who": {"anyOf": [PERSON, {"type": "null"}]}}),
    "a pattern": object_of({"code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"}}),
    "a date": object_of({"day": {"type": "string", "format": "date"}}),
    "a time": object_of({"at": {"type": "string", "format": "date-time"}}),
    "an id": object_of({"id": {"type": "string", "format": "uuid"}}),
    "references": object_of(
        {"first": {"$ref": "#/$defs/person"}, "second": {"$ref": "#/$defs/person"}},
        **{"$defs": {"person": PERSON}},
    ),
    "a tree": object_of(
        {"root": {"$ref": "#/$defs/node"}},
        **{"$defs": {"node": object_of({"name": TEXT}, {"child": list_of({"$ref": "#/$defs/node"}, 0, 1)})}},
    ),
    "a tuple": object_of(
        {
            "place": {
                "type": "array",
                "prefixItems": [{"type": "integer", "maximum": 90, "minimum": -90}, TEXT],
                "items": False,
                "minItems": 2,
            }
        }
    ),
    "a list at the top": list_of(TEXT, 1),
    "a text at the top": TEXT,
    "names in another script": object_of(
        {"имя": TEXT, "年齢": {"type": "integer", "minimum": 0, "maximum": 130}}
    ),
    "names with quotes": object_of({'a "quoted" name': TEXT, "a\\b": {"type": "boolean"}}),
}
QUESTIONS = [
    "Give me a record.",
    "Who was there?",
    "Describe draftd in one object.",
    "What does the profile hold?",
    "List what you know.",
]


def by_schema(schema: Schema) -> dict[str, Any]:
    """Return the field of a request that asks for an answer by a schema."""
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


def tools_of(parameters: dict[str, Schema]) -> list[dict[str, Any]]:
    """Return tools as a request offers them."""
    return [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in parameters.items()
    ]
