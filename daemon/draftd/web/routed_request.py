"""From the body that a client sent to the profile that it names, and what that profile's worker is sent. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from draftd.errors import RequestError
from draftd.web.dialects import messages_request, responses_request
from draftd.web.request_body import Endpoint, Forward, parse_body, prepare
from draftd.web.router import RoutingTable

Dialect = Literal[Endpoint, "messages", "count_tokens", "responses"]
_AS_CHATS: Mapping[Dialect, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "messages": messages_request.chat_request,
    "count_tokens": messages_request.count_request,
    "responses": responses_request.chat_request,
}
# Values in a body: lists, objects, and what stands in them. A conversation of ten thousand messages has half as
# many; millions of them fit into a body that is allowed, and each takes a hundred bytes of memory and more.
MAX_VALUES = 250_000
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Routed:
    """The name of the profile that a request is for, and what its worker is sent.

    `repeated` is what the answer repeats of the request, in a dialect where it does.
    """

    profile: str
    forward: Forward
    repeated: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a body is not taken; `profile` is the name of the one that it is for, None if that is not known."""

    profile: str | None
    error: RequestError


def route(raw: bytes, dialect: Dialect, table: RoutingTable) -> Routed | Refused:
    """Parse a body, find its profile, and make the request for the worker."""
    name: str | None = None
    try:
        asked = parse_body(raw)
        profile = table.resolve(asked.get("model"))
        name = profile.name
        endpoint: Endpoint = "completions" if dialect == "completions" else "chat.completions"
        body = _AS_CHATS[dialect](asked) if dialect in _AS_CHATS else asked
        prompt = table.profiles.prompt_of(profile)
        client_model = asked.get("model") or name
        forward = prepare(body, endpoint, profile, prompt, profile.upstream_model, client_model)
    except RequestError as error:
        return Refused(name, error)
    repeated = responses_request.repeated(asked) | {"model": client_model} if dialect == "responses" else {}
    return Routed(name, forward, repeated)


def check_size(raw: bytes) -> None:
    """Refuse a body with more values than MAX_VALUES, without making them. Raises RequestError (400)."""
    rest = _STRING.sub(b"", raw)
    if b'"' in rest:
        raise RequestError(400, "the body is not JSON: a string in it does not end")
    if sum(rest.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise RequestError(400, f"the body holds more than {MAX_VALUES} values")
