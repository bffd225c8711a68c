"""Where a key stands in a TOML text (tomllib does not say), and why pydantic refused it, in plain words.

Pure. Good for the flat files we read: top-level keys, tables and dotted keys; an inline table or an array is
one place, that of its key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_TABLE = re.compile(r"^\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?$")
_KEY = re.compile(r"""^\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_.\-]+))\s*=""")
_REASONS = {
    "extra_forbidden": "unknown key",
    "missing": "this key is required",
}


def line_of(text: str, loc: Sequence[Any]) -> int | None:
    """The 1-based line of the deepest part of `loc` found in `text`; None if no part is there."""
    wanted = [_normal(str(part)) for part in loc if isinstance(part, str)]
    best: tuple[int, int] | None = None  # (how many parts matched, line)
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            table = _parts(header[1])
            path = table
        elif key := _KEY.match(line):
            path = table + _parts(key[1])
        else:
            continue
        if path == wanted[: len(path)] and (best is None or len(path) > best[0]):
            best = (len(path), number)
    return best[1] if best else None


def reason_of(detail: Mapping[str, Any]) -> str:
    """pydantic's error detail in a user's words; a value is quoted only if it is short and plain."""
    reason = _REASONS.get(detail["type"])
    if reason is not None:
        return reason
    message = str(detail["msg"]).removeprefix("Value error, ")
    value = detail.get("input")
    quoted = isinstance(value, str | int | float | bool) and len(repr(value)) <= 60
    return f"{message} (it is {value!r})" if quoted else message


def _parts(dotted: str) -> list[str]:
    return [_normal(part.strip().strip("\"'")) for part in dotted.split(".")]


def _normal(key: str) -> str:
    return key.replace("-", "_")
