"""Where a key stands in a TOML text (tomllib does not say), and why pydantic refused it, in plain words.

Pure. Enough for the flat files we read: top-level keys, tables and dotted keys. What is inside an inline table or
an array has the place of its key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

_PART = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""
_PATH = rf"({_PART}(?:\s*\.\s*{_PART})*)"
_TABLE = re.compile(rf"^\s*\[\[?\s*{_PATH}\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(rf"^\s*{_PATH}\s*=")
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_REASONS = {
    "extra_forbidden": "unknown key",
    "missing": "this key is required",
    "tuple_type": "a list is expected",
    "model_type": "a table is expected",
    "path_type": "a path is expected",
    "byte_size": "a size is a number of bytes above 0, or a text like '8GB'",
}


def line_of(text: str, loc: Sequence[Any]) -> int | None:
    """The 1-based line of the deepest part of `loc` found in `text`; None if no part is there."""
    wanted = [_normal(str(part)) for part in loc if isinstance(part, str)]
    best: tuple[int, int] | None = None  # (how many parts matched, line)
    table: list[str] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        header, key = _TABLE.match(line), _KEY.match(line)
        if not (header or key) or _is_inside_value(lines[: number - 1]):
            continue
        if header:
            table = path = _parts(header[1])
        elif key:
            path = table + _parts(key[1])
        depth = _shared(path, wanted)
        if depth > (best[0] if best else 0):
            best = (depth, number)
    return best[1] if best else None


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many leading parts are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _is_inside_value(before: Sequence[str]) -> bool:
    """Whether these lines end in the middle of a text or list, so that the next one is no statement."""
    try:
        tomllib.loads("".join(f"{line}\n" for line in before))
    except ValueError:
        return True
    return False


def fault_of(text: str, error: Exception) -> tuple[int | None, str]:
    """Line and reason of what tomllib refused; besides TOMLDecodeError it raises what its parts raise."""
    if isinstance(error, RecursionError):
        return None, "not valid TOML: nested too deeply"
    place = _PLACE.search(str(error))
    if place is None:
        return None, f"not valid TOML: {error}"
    line = int(place[1]) if place[1] else text.rstrip("\n").count("\n") + 1
    return line, f"not valid TOML: {_PLACE.sub('', str(error))}"


def reason_of(detail: Mapping[str, Any]) -> str:
    """pydantic's error detail in a user's words; a value is quoted only if it is short and plain."""
    message = _REASONS.get(detail["type"]) or str(detail["msg"]).removeprefix("Value error, ")
    value = detail.get("input")
    plain = isinstance(value, str | int | float | bool) and len(repr(value)) <= 60
    quoted = plain and detail["type"] != "extra_forbidden"  # an unknown key may be a misspelt secret
    return f"{message} (it is {value!r})" if quoted else message


def _parts(dotted: str) -> list[str]:
    return [_normal(part.strip("\"'")) for part in re.findall(_PART, dotted)]


def _normal(key: str) -> str:
    return key.replace("-", "_")
