"""What becomes of one field of a request, and how a request is checked against a table of fields. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import takewhile
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from draftd.errors import RequestError

Object = dict[str, Any]
Count = Annotated[int, Field(ge=1)]
_MAX_SHOWN = 100  # characters of an unknown name that the client is shown
_STRICTLY = ConfigDict(strict=True, allow_inf_nan=False)
# Checks that look at nothing but the type, and the types that they let through unchanged.
_PLAIN: tuple[tuple[Any, frozenset[type]], ...] = (
    (str, frozenset({str})),
    (bool, frozenset({bool})),
    (Object, frozenset({dict})),
    (Any, frozenset({str, bool, int, list, dict})),
)
# What other servers and their clients call a field that is known here.
_OTHER_NAMES = {
    "n_predict": "max_tokens", "num_predict": "max_tokens", "max_new_tokens": "max_tokens",
    "max_output_tokens": "max_tokens", "repeat_penalty": "repetition_penalty", "typical_p": "min_p",
    "repeat_last_n": "repetition_context_size", "stop_sequences": "stop", "bad_words": "logit_bias",
    "enable_thinking": "chat_template_kwargs", "thinking": "chat_template_kwargs", "think": "chat_template_kwargs",
    "grammar": "response_format", "json_schema": "response_format", "guided_json": "response_format",
    "structured_outputs": "response_format", "input": "messages", "messages": "input", "response_format": "text",
    "speculative.n_max": "num_draft_tokens",
}  # fmt: skip

# Pydantic's words, and those for JSON.
_WORDS = {
    "a valid dictionary": "an object", "a valid list": "a list", "a valid string": "a string",
    "a valid boolean": "true or false", "a valid integer": "a whole number", "a valid number": "a number",
    "greater than or equal to": "at least", "less than or equal to": "at most",
}  # fmt: skip


class Handling(StrEnum):
    """What becomes of a field."""

    HONOURED = "honoured"
    TRANSLATED = "translated"
    NO_EFFECT = "no effect"
    REFUSED = "refused"


@dataclass(frozen=True)
class Row:
    """One field. `check` is its type with bounds, `note` what is done with it or why it is refused.

    For a refused field, `harmless` are the values that ask for nothing, and `passed_on` says whether another server
    gets it as it is.
    """

    name: str
    handling: Handling
    note: str
    check: Any = Any
    harmless: tuple[Any, ...] = ()
    passed_on: bool = True

    @cached_property
    def plain(self) -> frozenset[type]:
        """Values of these types pass as they are. (Pydantic comes to the same, and takes several times as long.)"""
        known = () if self.handling is Handling.REFUSED else _PLAIN
        return next((types for check, types in known if check == self.check), frozenset())

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.check, config=_STRICTLY)

    def checked(self, value: Any, place: str) -> Any:
        """The value with the type that it should have. Raises RequestError (400) that names `place`."""
        if self.handling is Handling.REFUSED:
            if not any(type(value) is type(one) and value == one for one in self.harmless):
                raise self._refusal(place)
            return value
        if self.check is Any:
            return value
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            raise _refusal_of(error, place) from error

    def _refusal(self, place: str) -> RequestError:
        if not self.harmless:
            return RequestError(
                400, f"{place} is not supported: {self.note}", code="unsupported_parameter", param=place
            )
        values = " or ".join(json.dumps(one) for one in self.harmless)
        return RequestError(
            400, f"{place} must be {values}, or left out: {self.note}", code="unsupported_value", param=place
        )


def _refusal_of(error: ValidationError, place: str) -> RequestError:
    """The first thing that is wrong with a value, in JSON's words, and where in the value it is."""
    detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
    for step in takewhile(lambda step: isinstance(step, int), detail["loc"]):
        place += f"[{step}]"
    reason = detail["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    for theirs, ours in _WORDS.items():
        reason = reason.replace(theirs, ours)
    return RequestError(400, f"{place} {reason}", param=place)


def honoured(name: str, note: str, check: Any = Any) -> Row:
    """It does what its own documentation says."""
    return Row(name, Handling.HONOURED, note, check)


def translated(name: str, note: str, check: Any = Any) -> Row:
    """It is honoured, in another form."""
    return Row(name, Handling.TRANSLATED, note, check)


def idle(name: str, note: str, check: Any) -> Row:
    """It cannot change the answer."""
    return Row(name, Handling.NO_EFFECT, note, check)


def refused(name: str, note: str, *harmless: Any, passed_on: bool = True) -> Row:
    """Any value but the `harmless` ones is refused."""
    return Row(name, Handling.REFUSED, note, Any, harmless, passed_on)


class Table:
    """The fields of one object; an `open` one lets further fields pass. `elsewhere` names the endpoints that have
    fields which this object lacks.
    """

    def __init__(
        self, rows: Iterable[Row], *, open: bool = False, elsewhere: Mapping[str, str] | None = None
    ) -> None:
        self.rows: Mapping[str, Row] = {row.name: row for row in rows}
        self._open = open
        self._elsewhere = elsewhere or {}

    def checked(self, fields: Mapping[str, Any], place: str = "", *, foreign: bool = False) -> dict[str, Any]:
        """The fields that are not null, with the types that they should have. `foreign` says that another server
        gets them, `place` where they stand. Raises RequestError (400) that names the one at fault.
        """
        made = {}
        for name, value in fields.items():
            if value is None:
                continue
            row = self.rows.get(name)
            if row is not None and type(value) in row.plain:
                made[name] = value
            elif row is not None and not (foreign and row.handling is Handling.REFUSED and row.passed_on):
                made[name] = row.checked(_whole(value), place + name)
            elif row is not None or foreign or self._open:
                made[name] = value
            else:
                raise self._unknown(name, place)
        return made

    def effective(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The checked fields that have an effect on a worker of our own."""
        idle = {Handling.NO_EFFECT, Handling.REFUSED}
        return {
            name: v
            for name, v in fields.items()
            if name not in self.rows or self.rows[name].handling not in idle
        }

    def _unknown(self, name: str, place: str) -> RequestError:
        shown = place + name[:_MAX_SHOWN]
        meant = _OTHER_NAMES.get(name) or next(iter(difflib.get_close_matches(name, self.rows, n=1)), "")
        if name in self._elsewhere:
            hint = f": it belongs to {self._elsewhere[name]}"
        else:
            hint = f"; did you mean '{place}{meant}'?" if meant in self.rows else ""
        return RequestError(400, f"there is no field '{shown}'{hint}", code="unknown_parameter", param=shown)


def _whole(value: Any) -> Any:
    """5.0 is a whole number in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
