"""Tool calls in pieces, as workers send them: which piece belongs to which call. Pure.

In OpenAI's protocol the pieces of a call share an index, and only the first has an id and a name. Servers differ:
parallel calls all come with index 0, or without any; each piece of one call comes with a new id, or repeats the
name; calls come without an id. So a call begins where a name stands, unless the piece goes on with the call that it
belongs to by its id, by its index, or by coming right after it: see `_Call.ends_before`. Clients get what the
protocol promises.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from draftd.web import json_codec
from draftd.web.answer_models import Function, ToolCall


@dataclass(slots=True)
class _Piece:
    """`place` is the worker's index, None if it gave none."""

    place: int | None
    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class _Call:
    """One call so far. `given_id` is the worker's, empty if it gave none; `more` are fields that we do not know."""

    index: int
    id: str
    given_id: str
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def ends_before(self, piece: _Piece) -> bool:
        """Whether the piece is the first of another call, though its id or its index may be this one's."""
        if not piece.name or not self.name:
            return bool(piece.name and piece.id and self.given_id and piece.id != self.given_id)
        if piece.name != self.name or (piece.id and self.given_id and piece.id != self.given_id):
            return True
        return bool(piece.arguments.strip()) and _is_object("".join(self.arguments))

    def whole(self) -> dict[str, Any]:
        """As in an answer in one piece."""
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        return self.more | {"id": self.id, "type": "function", "function": function}


class ToolCalls:
    """The calls of one answer. `seed` makes the ids of those that came without one."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._calls: dict[int, _Call] = {}  # by the index that the client knows
        self._at: dict[int, _Call] = {}  # the newest with this index of the worker's
        self._newest: _Call | None = None

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(self, raw: Sequence[Any], pieces: Sequence[ToolCall | None]) -> list[dict[str, Any]]:
        """The pieces of a chunk for the client; `raw` are the same pieces as they came."""
        begun: set[int] = set()
        return [
            self._take(fields, piece, begun)
            for fields, piece in zip(raw, pieces, strict=True)
            if piece is not None
        ]

    def _take(self, raw: dict[str, Any], given: ToolCall, begun: set[int]) -> dict[str, Any]:
        """`begun` are the calls that began in this chunk: a piece in it goes on with one only if it says which."""
        piece = _piece(given)
        more = {key: value for key, value in raw.items() if value is not None}
        call = self._continued(piece)
        again = call is not None and piece.place is None and not piece.id and call.index in begun
        if call is None or call.ends_before(piece) or (again and piece.name):
            call = self._begin(piece, more)
            begun.add(call.index)
            told = call.whole()
        else:
            told = {key: more[key] for key in more.keys() - {"id", "type"}}
            told["function"] = {"arguments": piece.arguments}
            if piece.name and not call.name:
                call.name = told["function"]["name"] = piece.name
            call.arguments.append(piece.arguments)
        self._newest = call
        if piece.place is not None:
            self._at[piece.place] = call
        return told | {"index": call.index}

    def _continued(self, piece: _Piece) -> _Call | None:
        """The call that the piece belongs to, if it does not begin one."""
        if piece.id:
            for call in self._calls.values():
                if call.given_id == piece.id:
                    return call
        return self._newest if piece.place is None else self._at.get(piece.place)

    def _begin(self, piece: _Piece, more: dict[str, Any]) -> _Call:
        index = piece.place
        if index is None or index in self._calls:
            index = max(self._calls, default=-1) + 1
        taken = any(call.id == piece.id for call in self._calls.values())
        name = piece.id if piece.id and not taken else f"call_{self._seed}{index}"
        unknown = {key: more[key] for key in more.keys() - {"index", "id", "type", "function"}}
        call = _Call(index, name, piece.id, piece.name, [piece.arguments], unknown)
        self._calls[index] = call
        return call

    def whole(self) -> list[dict[str, Any]]:
        """The calls as in an answer in one piece."""
        return [self._calls[index].whole() for index in sorted(self._calls)]


def _piece(given: ToolCall) -> _Piece:
    function = given.function or Function()
    arguments = function.arguments
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments)
    name = "" if given.id is None else str(given.id)
    return _Piece(_place(given.index), name, function.name or "", arguments or "")


def _place(index: float | str | None) -> int | None:
    """An index in any form that servers write; None for anything else, which is as good as no index."""
    try:
        place = -1 if index is None else int(index)
    except (ValueError, OverflowError):
        return None
    return place if place >= 0 else None


def _is_object(arguments: str) -> bool:
    """Whether the arguments are complete."""
    try:
        return isinstance(json_codec.loads(arguments.encode("utf-8", "replace")), dict)
    except (ValueError, RecursionError):
        return False
