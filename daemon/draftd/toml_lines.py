"""Where a key stands in a TOML text (tomllib does not say), and why pydantic refused it, in plain words.

Pure. Enough for the flat files we read: top-level keys, tables and dotted keys. What is inside an inline table or
an array has the place of its key.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

MAX_KEY_PARTS = 32  # of `a.b.c`: tomllib takes time by the square of them

_PART = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""
_PATH = rf"({_PART}(?:\s*\.\s*{_PART})*)"
_TABLE = re.compile(rf"^\s*\[\[?\s*{_PATH}\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(rf"^\s*{_PATH}\s*=")
_DEEP_KEY = re.compile(rf"^\s*\[{{0,2}}\s*{_PART}(?:[ \t]*\.[ \t]*{_PART}){{{MAX_KEY_PARTS}}}", re.MULTILINE)
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_WHOLE, _NUMBER, _BOOL, _TEXT = (
    f"{what} is expected" for what in ("a whole number", "a number", "true or false", "a string")
)
# By pydantic's type of the error; in braces what the type's context says.
_REASONS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    "finite_number": "a finite number is expected",
    **dict.fromkeys(("bool_type", "bool_parsing"), _BOOL),
    "string_type": _TEXT,
    **dict.fromkeys(("list_type", "set_type"), "a list is expected"),
    "dict_type": "a table is expected",
    "literal_error": "{expected} is expected",
    "greater_than": "it must be more than {gt:.12g}",
    "greater_than_equal": "it must be at least {ge:.12g}",
    "less_than": "it must be less than {lt:.12g}",
    "less_than_equal": "it must be at most {le:.12g}",
    "string_too_short": "it must not be empty",  # no string of ours needs more than one character
    "string_too_long": "the string is too long: it may have {max_length} characters",
    "too_short": "it needs {min_length} items or more",
    "too_long": "it may have {max_length} items",
    "extra_forbidden": "unknown key",
    "missing": "this key is required",
    "tuple_type": "a list is expected",
    "model_type": "a table is expected",
    "path_type": "a path is expected",
    "byte_size": "a size is a whole number of bytes, or a string like '8GB', and not negative",
}
_BRANCHES = re.compile(
    r"str|int|float|bool|(?:list|tuple|dict)\[.*\]|literal\[.*\]|constrained-.*|function-.*"
)
# How a message of tomllib begins -> the same for somebody who has never heard of its terms.
_TOML_REASONS = {
    "Illegal character '\\n'": "a string is not closed on its line: a quote is missing",
    "Unterminated string": "a string is not closed: a quote is missing",
    'Expected \'"""\'': 'a string is not closed: """ is missing',
    "Expected \"'''\"": "a string is not closed: ''' is missing",
    'Expected "\'"': "a string is not closed on its line: a quote is missing",
    "Unescaped '\\'": "in double quotes a backslash is written twice; in single quotes once will do",
    "Invalid value": "there is no value, or none that TOML knows: a string needs quotes",
    "Invalid initial character for a key part": "a key is missing here",
    "Invalid statement": "a line is a key and its value, a [table], or a # comment",
    "Expected '=' after a key": "a key needs '=' and a value after it",
    "Expected newline or end of document": "there is something after the value: each key needs its own line",
    "Expected ']' at the end of a table": "the name of a table is not closed: ']' is missing",
    "Expected ']]' at the end of an array": "the name of a table is not closed: ']]' is missing",
    "Unclosed array": "a list is not closed: ']' or ',' is missing",
    "Unclosed inline table": "a table in braces is not closed: '}' or ',' is missing",
    "Cannot overwrite a value": "this key is here for the second time",
    "Duplicate inline table key": "a key is in these braces for the second time",
    "Cannot declare": "this table is here for the second time",
    "Cannot redefine": "this table is here for the second time",
    "Cannot mutate": "what is in braces or brackets is complete: nothing can be added to it later",
    "Invalid date": "there is no such date",
    "Invalid hex value": "\\u needs four hexadecimal digits after it",
    "Escaped character": "the number after \\u is not that of a character",
    "Exceeds the limit": "a number has too many digits",
}


def read_toml(text: str) -> dict[str, Any]:
    """What a TOML text holds. Raises ValueError and RecursionError, which `fault_of` puts into words."""
    if deep := _DEEP_KEY.search(text):
        line = text.count("\n", 0, deep.end()) + 1
        raise ValueError(f"a key has more than {MAX_KEY_PARTS} parts (at line {line}, column 1)")
    return tomllib.loads(text)


def nul_in(value: object, loc: tuple[str | int, ...] = ()) -> tuple[tuple[str | int, ...], str] | None:
    """Place and reason of the first string with a NUL in a TOML value: no program takes one."""
    if isinstance(value, str) and "\0" in value:
        item = f"item {number + 1} has" if loc and isinstance(number := loc[-1], int) else "it has"
        at = value.index("\0") + 1
        return loc, f"{item} a NUL (\\u0000) at its character {at}: no program and no file can be given one"
    for key, inner in _parts_of(value):
        if isinstance(key, str) and "\0" in key:
            return loc, "there is a key with a NUL (\\u0000) in it"
        if (found := nul_in(inner, (*loc, key))) is not None:
            return found
    return None


def _parts_of(value: object) -> Iterable[tuple[str | int, object]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def line_of(text: str, loc: Sequence[Any]) -> int | None:
    """The 1-based line of the deepest part of `loc` found in `text`; None if no part is there."""
    wanted = [_normal(str(part)) for part in loc if isinstance(part, str)]
    number_in_list = next((part for part in loc if isinstance(part, int)), 0)
    best: tuple[int, int] | None = None  # (how many parts matched, line)
    table: list[str] = []
    lists: Counter[str] = Counter()  # tables of a list so far, by its name
    for number, header, key in _statements(text):
        if header:
            table = path = _parts(header[1])
            if header[0].lstrip().startswith("[["):
                lists[header[1]] += 1
                if lists[header[1]] <= number_in_list:
                    table = path = []  # an earlier one
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


@lru_cache(maxsize=1)  # each fault of a text asks
def _statements(text: str) -> tuple[tuple[int, re.Match[str] | None, re.Match[str] | None], ...]:
    return tuple(_find_statements(text.split("\n")))


def _find_statements(
    lines: Sequence[str],
) -> Iterator[tuple[int, re.Match[str] | None, re.Match[str] | None]]:
    """The lines that are the header of a table or begin with a key, by their numbers: (number, header, key)."""
    last = 0  # where the last one begins
    for number, line in enumerate(lines, start=1):
        header, key = _TABLE.match(line), _KEY.match(line)
        if (header or key) and not _is_inside_value(lines[last : number - 1]):
            last = number - 1
            yield number, header, key


def _is_inside_value(before: Sequence[str]) -> bool:
    """Whether these lines end in the middle of a string or list, so that the next one is not a statement."""
    try:
        tomllib.loads("".join(f"{line}\n" for line in before))
    except ValueError:
        return True
    return False


def fault_of(text: str, error: Exception) -> tuple[int | None, str]:
    """Line and reason of what tomllib refused; besides TOMLDecodeError it raises what its parts raise."""
    if isinstance(error, RecursionError):
        return None, "not valid TOML: nested too deeply"
    said = _PLACE.sub("", str(error))
    reason = next((ours for theirs, ours in _TOML_REASONS.items() if said.startswith(theirs)), said)
    place = _PLACE.search(str(error))
    if place is None:
        return None, f"not valid TOML: {reason}"
    line = int(place[1]) if place[1] else text.rstrip("\n").count("\n") + 1
    return line, f"not valid TOML: {reason}"


def reason_of(detail: Mapping[str, Any]) -> str:
    """pydantic's error detail in a user's words; a value is quoted only if it is short and plain."""
    ours = _REASONS.get(detail["type"])
    message = _filled(ours, detail.get("ctx") or {}) or str(detail["msg"]).removeprefix("Value error, ")
    value = detail.get("input")
    plain = isinstance(value, str | int | float | bool) and len(repr(value)) <= 60
    quoted = plain and detail["type"] != "extra_forbidden"  # an unknown key may be a misspelt secret
    return f"{message} (it is {_as_written(value)})" if quoted else message


def _as_written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _filled(reason: str | None, context: Mapping[str, Any]) -> str | None:
    try:
        return reason and reason.format_map(context)
    except (KeyError, ValueError):  # another version of pydantic says it differently
        return None


def without_branches(loc: Sequence[Any]) -> tuple[Any, ...]:
    """`loc` without pydantic's names for the types that a value may have: no file has them."""
    while len(loc) > 1 and isinstance(loc[-1], str) and _BRANCHES.fullmatch(loc[-1]):
        loc = loc[:-1]
    return tuple(loc)


def joined(details: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """pydantic's details, one for each key: pydantic gives one for each type that a value may have and has not."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for detail in details:
        loc = without_branches(detail["loc"])
        made = {**detail, "loc": loc}
        if len(loc) < len(detail["loc"]) and loc in found:
            first = found[loc]
            both = f"{_plain(first)}, or {_plain(made)}"
            made = {**first, "type": "value_of_types", "msg": both}
        found[loc if len(loc) < len(detail["loc"]) else (*loc, len(found))] = made
    return list(found.values())


def _plain(detail: Mapping[str, Any]) -> str:
    return reason_of({**detail, "input": None})


def _parts(dotted: str) -> list[str]:
    return [_normal(part.strip("\"'")) for part in re.findall(_PART, dotted)]


def _normal(key: str) -> str:
    return key.replace("-", "_")
