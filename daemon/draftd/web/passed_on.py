"""Requests that another server gets as they are: those of no dialect, and those of a dialect that it speaks itself.

Pure. Only the name of the model is changed, from the profile's to the one that the server knows, wherever it
stands: in a JSON object, in a form, or in the query. Nothing else is read, so bodies may be of any kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus

import msgspec

from draftd.errors import RequestError
from draftd.peers.bodies import Body
from draftd.peers.prefixes import Away, Prompt
from draftd.web.form_model import FormModel

JSON, BYTES, FORM = "application/json", "application/octet-stream", "multipart/form-data"
# The address of each dialect at a server that speaks it itself.
NATIVE: Mapping[str, str] = {
    "messages": "/v1/messages",
    "count_tokens": "/v1/messages/count_tokens",
    "responses": "/v1/responses",
}


class Served(Protocol):
    """A model, and the name by which it is known where it is served."""

    @property
    def name(self) -> str: ...

    @property
    def upstream_model(self) -> str: ...


def kind_of(content_type: str) -> str:
    """A content type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Given:
    """A request as it came; `path` is without the query and its percent signs."""

    path: str
    query: str
    content_type: str
    body: Body = b""

    @property
    def _kind(self) -> str:
        return kind_of(self.content_type)

    def model(self) -> Any:
        """What is given as the model's name; None if nothing is. Raises RequestError (400)."""
        if self._kind == JSON:
            return msgspec.json.decode(self._fields().get("model", msgspec.Raw(b"null")))
        if place := self._place_in_form():
            name = self.body[place] if isinstance(self.body, bytes) else self.body.name(place)
            return name.decode("utf-8", "replace").strip()
        return dict(parse_qsl(self.query)).get("model")

    def passed_to(self, served: Served, *, away: bool = False) -> Passed:
        """The request for the worker of a profile, or for a peer. Raises RequestError (400)."""
        body = self.body
        if self._kind == JSON:
            named = msgspec.Raw(msgspec.json.encode(served.upstream_model))
            body = msgspec.json.encode(self._fields() | {"model": named})
        elif place := self._place_in_form():
            body = _renamed_in(body, place, served.upstream_model.encode())
        query = "&".join(_renamed(pair, served.upstream_model) for pair in self.query.split("&"))
        path = quote(self.path) + (f"?{query}" if query else "")
        elsewhere = Away(body, Prompt(len(body), ()), only=True) if away else None
        return Passed(served.name, path, body, self.content_type or BYTES, elsewhere)

    def _fields(self) -> dict[str, msgspec.Raw]:
        """A JSON object whose values have been checked, but not built."""
        assert isinstance(self.body, bytes), "JSON is read as a whole"
        try:
            return msgspec.json.decode(self.body, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, RecursionError) as error:
            raise RequestError(400, "the body must be a JSON object") from error

    def _place_in_form(self) -> slice | None:
        """Where the model's name stands in a form; None if it does not, or if the body is not a form."""
        if not isinstance(self.body, bytes):
            return self.body.place
        if self._kind != FORM:
            return None
        form = FormModel(self.content_type)
        form.take(self.body)
        return form.place


@dataclass(frozen=True, slots=True)
class Passed:
    """What the worker of a profile is sent at `path`, its query included; `away` is for a peer."""

    profile: str
    path: str
    payload: Body
    content_type: str
    away: Away | None = None


def _renamed_in(form: Body, place: slice, model: bytes) -> Body:
    if isinstance(form, bytes):
        return form[: place.start] + model + form[place.stop :]
    return form.renamed(model)


def _renamed(pair: str, model: str) -> str:
    """A pair of a query, with the name of the model in it if that is what it gives."""
    return f"model={quote_plus(model)}" if unquote_plus(pair.partition("=")[0]) == "model" else pair
