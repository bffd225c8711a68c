"""Images in a request of another dialect: where the client's own request has the first one. Pure.

A worker of our own reads none. Translation changes how many messages a request has, and a refusal that named a
place among the translated ones would send the client to the wrong one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from draftd.errors import RequestError

_KINDS = ("image", "input_image")
_DEPTH = (
    5  # a list of messages, one of them, its blocks, the result of a tool among them, the result's blocks
)


def refuse_pictures(body: Mapping[str, Any], messages: Iterable[Mapping[str, Any]]) -> None:
    """Raises RequestError (400) if one of the messages that a request was translated to is not a text."""
    if all(isinstance(message["content"], str) for message in messages):
        return
    places = (_first(body.get(name), name, _DEPTH) for name in ("messages", "input"))
    place = next(filter(None, places), "messages")
    raise RequestError(400, f"{place}: only text is supported, no images or audio", param=place)


def _first(value: Any, place: str, depth: int) -> str | None:
    if isinstance(value, list) and depth:
        found = (_first(one, f"{place}[{number}]", depth - 1) for number, one in enumerate(value))
        return next(filter(None, found), None)
    if not isinstance(value, dict):
        return None
    if value.get("type") in _KINDS:
        return place
    return _first(value.get("content"), f"{place}.content", depth) or _first(
        value.get("output"), f"{place}.output", depth
    )
