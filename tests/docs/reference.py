"""The parts of the pages that are made from the code. `python -m tests.docs` writes them anew.

A part stands between `<!-- NAME: made by python -m tests.docs -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from draftd.profile_tables import (
    Distributed,
    HealthPolicy,
    Limits,
    RequestDefaults,
    RestartPolicy,
    ServerFlags,
)
from draftd.profiles import Profile
from draftd.settings import Settings
from draftd.web.dialects import messages_fields, responses_fields
from draftd.web.dialects.field_table import Row, Table
from draftd.web.dialects.fields import CHAT, INNER, TEXT
from draftd.web.dialects.messages_fields import MESSAGES
from draftd.web.dialects.responses_fields import RESPONSES
from tests.docs.pairs import pairs_table

HEAD = "| {} | meaning | default |\n|---|---|---|\n"
BODIES = {"chat": CHAT, "text": TEXT}
PART = re.compile(
    r"(?<=<!-- )([\w ]+)(: made by python -m tests\.docs -->\n\n)(.*?)(?=\n<!-- end -->)", re.DOTALL
)


def with_parts(text: str) -> str:
    """The text of a page with its generated parts made anew. Raises KeyError for a part that nobody makes."""
    return PART.sub(lambda found: f"{found[1]}{found[2]}{PARTS[found[1]]()}", text)


def parts_in(text: str) -> set[str]:
    """The names of the generated parts in a page."""
    return {found[1] for found in PART.finditer(text)}


def profile_keys() -> str:
    """The keys of a profile file, with those of its tables that have a meaning of their own."""
    tables: dict[str, type[BaseModel]] = {
        "limits": Limits,
        "restart": RestartPolicy,
        "health": HealthPolicy,
        "distributed": Distributed,
    }
    keys = {
        name: field
        for name, field in Profile.model_fields.items()
        if not _is_table(field) and name not in tables
    }
    rows = _rows(keys) + "".join(_rows(model.model_fields, f"[{name}] ") for name, model in tables.items())
    words = f"`[defaults]` takes {_names(RequestDefaults)}. `[server]` takes {_names(ServerFlags)}."
    return HEAD.format("key") + rows + "\n" + _wrapped(words)


def settings() -> str:
    """The daemon's settings."""
    return HEAD.format("setting") + _rows(Settings.model_fields)


def request_fields() -> str:
    """What becomes of each field of a request, sorted, with those of the objects within it at the end."""
    rows = [
        _field_row(
            row.name, row, " ".join(where for where, table in BODIES.items() if row.name in table.rows)
        )
        for row in sorted({**TEXT.rows, **CHAT.rows}.values(), key=lambda row: row.name)
    ]
    rows += [
        _field_row(place + row.name, row, "") for place, table in INNER.items() for row in table.rows.values()
    ]
    return "| field | in | what becomes of it |\n|---|---|---|\n" + "".join(rows)


def fields_of_messages() -> str:
    """What becomes of each field of a request in Anthropic's form."""
    return _fields(MESSAGES, messages_fields.INNER)


def fields_of_responses() -> str:
    """What becomes of each field of a request in the form of OpenAI's responses."""
    return _fields(RESPONSES, responses_fields.INNER)


def _fields(outer: Table, inner: Mapping[str, Table]) -> str:
    rows = [_field_row(row.name, row) for row in sorted(outer.rows.values(), key=lambda row: row.name)]
    rows += [
        _field_row(place + row.name, row) for place, table in inner.items() for row in table.rows.values()
    ]
    return "| field | what becomes of it |\n|---|---|\n" + "".join(rows)


def _field_row(name: str, row: Row, where: str | None = None) -> str:
    words = row.handling.value
    if row.harmless:
        words += " but for " + ", ".join(f"`{json.dumps(one)}`" for one in row.harmless)
    column = "" if where is None else f" {where} |"
    return f"| `{name}` |{column} {words}{': ' if row.note else ''}{row.note} |\n"


PARTS: Mapping[str, Callable[[], str]] = {
    "profile keys": profile_keys,
    "settings": settings,
    "model pairs": pairs_table,
    "request fields": request_fields,
    "fields of messages": fields_of_messages,
    "fields of responses": fields_of_responses,
}


def _is_table(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _rows(fields: dict[str, FieldInfo], prefix: str = "") -> str:
    return "".join(
        f"| `{prefix}{name}` | {field.description} | {_default(name, field)} |\n"
        for name, field in fields.items()
    )


def _default(name: str, field: FieldInfo) -> str:
    if name == "name":  # the loader fills it in
        return "the file's stem"
    value: Any = field.default
    if value is PydanticUndefined:
        return "the platform's" if field.default_factory else "required"
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _names(model: type[BaseModel]) -> str:
    return ", ".join(f"`{name}`" for name in model.model_fields)


def _wrapped(words: str, width: int = 118) -> str:
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines) + "\n"
