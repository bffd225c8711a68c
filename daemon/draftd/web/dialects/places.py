"""Where in a request something stands, and the refusal that names it. Pure.

A place is written out only for a refusal: a conversation has thousands of places, and seldom a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from draftd.errors import RequestError

# A field of the request, or a step further from another place: by a name into an object, by a number into a list.
Place = str | tuple["Place", str | int]


def shown(place: Place) -> str:
    """As a client reads it: messages[3].content[0]."""
    if isinstance(place, str):
        return place
    outer, step = place
    return f"{shown(outer)}.{step}" if isinstance(step, str) else f"{shown(outer)}[{step}]"


def refusal(place: Place, says: str, code: str | None = None) -> RequestError:
    """What is at this place is not taken: `says` goes on with the sentence that the place begins."""
    where = shown(place)
    return RequestError(400, f"{where} {says}", code=code, param=where)


def object_at(place: Place, value: Any) -> dict[str, Any]:
    """The value, which has to be an object. Raises RequestError (400)."""
    if not isinstance(value, dict):
        raise refusal(place, "must be an object")
    return value


def string_in(fields: Mapping[str, Any], name: str, place: Place, *, empty: bool = False) -> str:
    """A field of the object at this place, which has to be a string; it may be `empty`.

    Raises RequestError (400).
    """
    value = fields.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise refusal((place, name), "must not be empty" if value == "" else "must be a string")
    return value
