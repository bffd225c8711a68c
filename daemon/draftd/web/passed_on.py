"""Requests that another server gets as they are: those of no dialect, and those of a dialect that it speaks itself.

Pure. Only the name of the model is changed, from the profile's to the one that the server knows, wherever it
stands: in a JSON object, in a form, or in the query. Nothing else is read, so bodies may be of any kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus

import msgspec

from draftd.errors import RequestError
from draftd.peers.prefixes import Away, Prompt

JSON, BYTES = "application/json", "application/octet-stream"
MAX_PARTS = 1000  # of a form
# The address of each dialect at a server that speaks it itself.
NATIVE: Mapping[str, str] = {
    "messages": "/v1/messages",
    "count_tokens": "/v1/messages/count_tokens",
    "responses": "/v1/responses",
}
_FORM = "multipart/form-data"
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
# What stands in quotes, as the name of a file does, is skipped. Nothing is tried twice (`*+`): heads may be long.
_NAMED_MODEL = re.compile(
    rb"""
    ^content-disposition: [^;"\r\n]*+
    (?: ; (?! [ \t]* name=) (?: [^;"\r\n] | "(?: [^"\\\r\n] | \\[^\r\n] )*+" )*+ )*+  # the other parameters
    ; [ \t]* name= (?: "model" | model (?= [;\s] | \Z) )
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


class Served(Protocol):
    """A model, and the name by which it is known where it is served."""

    @property
    def name(self) -> str: ...

    @property
    def upstream_model(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Given:
    """A request as it came; `path` is without the query and its percent signs."""

    path: str
    query: str
    content_type: str
    body: bytes = b""

    @property
    def _kind(self) -> str:
        return self.content_type.partition(";")[0].strip().lower()

    def model(self) -> Any:
        """What is given as the model's name; None if nothing is. Raises RequestError (400)."""
        if self._kind == JSON:
            return msgspec.json.decode(self._fields().get("model", msgspec.Raw(b"null")))
        if place := self._place_in_form():
            return self.body[place].decode("utf-8", "replace").strip()
        return dict(parse_qsl(self.query)).get("model")

    def passed_to(self, served: Served, *, away: bool = False) -> Passed:
        """The request for the worker of a profile, or for a peer. Raises RequestError (400)."""
        body = self.body
        if self._kind == JSON:
            named = msgspec.Raw(msgspec.json.encode(served.upstream_model))
            body = msgspec.json.encode(self._fields() | {"model": named})
        elif place := self._place_in_form():
            body = body[: place.start] + served.upstream_model.encode() + body[place.stop :]
        query = "&".join(_renamed(pair, served.upstream_model) for pair in self.query.split("&"))
        path = quote(self.path) + (f"?{query}" if query else "")
        elsewhere = Away(body, Prompt(len(body), ()), only=True) if away else None
        return Passed(served.name, path, body, self.content_type or BYTES, elsewhere)

    def _fields(self) -> dict[str, msgspec.Raw]:
        """A JSON object whose values have been checked, but not built."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, RecursionError) as error:
            raise RequestError(400, "the body must be a JSON object") from error

    def _place_in_form(self) -> slice | None:
        """Where the model's name stands in a form; None if it does not, or if the body is not a form."""
        if self._kind != _FORM:
            return None
        found = _BOUNDARY.search(self.content_type)
        if found is None:
            raise RequestError(400, "the Content-Type of a form must have a boundary")
        mark = b"--" + (found[1] or found[2]).encode("latin-1", "replace")
        begin = self.body.find(mark)
        for _ in range(MAX_PARTS):
            end = self.body.find(b"\r\n" + mark, begin + len(mark))
            if begin < 0 or end < 0:
                return None
            head = self.body.find(b"\r\n\r\n", begin, end)
            if head >= 0 and _NAMED_MODEL.search(self.body, begin, head):
                return slice(head + 4, end)
            begin = end + 2
        raise RequestError(400, f"the form has more than {MAX_PARTS} parts")


@dataclass(frozen=True, slots=True)
class Passed:
    """What the worker of a profile is sent at `path`, its query included; `away` is for a peer."""

    profile: str
    path: str
    payload: bytes
    content_type: str
    away: Away | None = None


def _renamed(pair: str, model: str) -> str:
    """A pair of a query, with the name of the model in it if that is what it gives."""
    return f"model={quote_plus(model)}" if unquote_plus(pair.partition("=")[0]) == "model" else pair
