"""JSON with comments and trailing commas, edited as text: what is not set stays as it is, to the letter.

Pure. A text is read into a tree of values that know where they stand; setting a key replaces the text of one value
or inserts one member. No maintained Python library does this. It takes what Microsoft's jsonc-parser takes, with
which OpenCode reads its config.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_SPACE = re.compile(r"(?:[ \t\r\n\ufeff]|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_REST_OF_LINE = re.compile(r"(?:[ \t]|/\*[^\n]*?\*/)*(?://[^\r\n]*)?")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")


class JsoncError(ValueError):
    """The text is not JSON, even where comments are allowed. `line` counts from 1."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(slots=True)
class _Node:
    """A value and its place in the text. `members` is None for any but an object; of equal keys the last counts."""

    value: Any
    start: int
    end: int
    members: dict[str, _Node] | None = None
    key_starts: list[int] = field(default_factory=list)
    last_end: int = 0  # of the last member's value
    comma_end: int | None = None  # of a trailing comma


def parse(text: str) -> Any:
    """The data of a text. Raises JsoncError."""
    return _Reader(text).read().value


def merge(text: str, wanted: Mapping[str, Any]) -> str:
    """The text with the keys of `wanted` set, object by object; every other key and all comments stay.

    An empty text is an empty object. Raises JsoncError if the text cannot be read or holds no object.
    """
    if not text.strip("\ufeff \t\r\n"):
        return json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"
    if not isinstance(parse(text), dict):
        raise JsoncError("it must hold an object", 1)
    return _merge(text, (), wanted)


def _merge(text: str, path: tuple[str, ...], wanted: Mapping[str, Any]) -> str:
    for key, value in wanted.items():
        found = _at(_Reader(text).read(), (*path, key))
        if found is not None and found.members is not None and isinstance(value, Mapping):
            text = _merge(text, (*path, key), value)
        elif (
            found is None or found.value != value or isinstance(found.value, bool) != isinstance(value, bool)
        ):
            text = _set(text, path, key, value)
    return text


def _at(node: _Node, path: Sequence[str]) -> _Node | None:
    found: _Node | None = node
    for key in path:
        found = found.members.get(key) if found is not None and found.members is not None else None
    return found


def _set(text: str, path: Sequence[str], key: str, value: Any) -> str:
    """Set one key of the object at `path`, which exists."""
    root = _Reader(text).read()
    owner = _at(root, path)
    assert owner is not None
    assert owner.members is not None
    style = _Style(text, root, owner)
    if (old := owner.members.get(key)) is not None:
        return text[: old.start] + style.dump(value) + text[old.end :]
    member = f"{json.dumps(key, ensure_ascii=False)}: {style.dump(value)}"
    if not owner.members:
        inside = text[owner.start + 1 : owner.end - 1]
        rest = inside if inside.strip() else style.break_(style.outer)
        return text[: owner.start + 1] + style.break_(style.inner) + member + rest + text[owner.end - 1 :]
    return _append(text, owner, style, member)


def _append(text: str, owner: _Node, style: _Style, member: str) -> str:
    """Add it after the last member and the comment that stands on its line."""
    after = owner.comma_end or owner.last_end
    gap, at = " ", after
    if style.lines:
        place = _REST_OF_LINE.match(text, after)
        assert place is not None
        gap, at = style.break_(style.inner), place.end()
    comma = "" if owner.comma_end else ","
    own_comma = "," if owner.comma_end else ""
    return text[: owner.last_end] + comma + text[owner.last_end : at] + gap + member + own_comma + text[at:]


class _Style:
    """How the text around `owner` is laid out: its line ends and indents, and whether members have own lines."""

    def __init__(self, text: str, root: _Node, owner: _Node) -> None:
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._unit = (_indent(text, root.key_starts[0]) if root.key_starts else "") or "  "
        self.outer = _indent(text, owner.start, strict=False)
        own = _indent(text, owner.key_starts[-1]) if owner.key_starts else ""
        self.inner = own or self.outer + self._unit
        self.lines = not owner.key_starts or "\n" in text[owner.start : owner.end]

    def break_(self, indent: str) -> str:
        """A new line with this indent."""
        return self._newline + indent

    def dump(self, value: Any) -> str:
        """The value as JSON, its further lines indented to stand below a member of the object."""
        if not self.lines:
            return json.dumps(value, ensure_ascii=False)
        shown = json.dumps(value, indent=self._unit, ensure_ascii=False)
        return shown.replace("\n", self.break_(self.inner))


def _indent(text: str, at: int, *, strict: bool = True) -> str:
    """The whitespace that the line of `at` begins with; if `strict`, only when nothing else stands before `at`."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    blanks = line[: len(line) - len(line.lstrip(" \t"))]
    return blanks if blanks == line or not strict else ""


class _Reader:
    """Reads a text from its beginning to its end into nodes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def read(self) -> _Node:
        try:
            node = self._value()
        except RecursionError:
            raise self._fault("it is nested too deeply") from None
        self._skip()
        if self._at < len(self._text):
            raise self._fault("there is something after the end")
        return node

    def _fault(self, reason: str) -> JsoncError:
        return JsoncError(reason, self._text.count("\n", 0, self._at) + 1)

    def _skip(self) -> str:
        """Skip whitespace and comments; returns the character that follows, "" at the end."""
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        return self._text[self._at : self._at + 1]

    def _value(self) -> _Node:
        first = self._skip()
        if first == "{":
            return self._object()
        if first == "[":
            return self._array()
        return self._token(_STRING if first == '"' else _SCALAR)

    def _token(self, kind: re.Pattern[str]) -> _Node:
        found = kind.match(self._text, self._at)
        if found is None:
            raise self._fault("a value is expected" if kind is _SCALAR else "a string is not valid")
        start, self._at = self._at, found.end()
        try:
            return _Node(json.loads(found.group()), start, self._at)
        except ValueError as error:
            raise self._fault(str(error)) from error

    def _object(self) -> _Node:
        node = _Node({}, self._at, 0, members={})
        assert node.members is not None
        self._at += 1
        while self._skip() != "}":
            if self._text[self._at : self._at + 1] != '"':
                raise self._fault("a key in quotes is expected")
            node.key_starts.append(self._at)
            key = self._token(_STRING).value
            if self._skip() != ":":
                raise self._fault("':' is expected after a key")
            self._at += 1
            value = self._value()
            node.members[key], node.value[key] = value, value.value
            node.last_end, node.comma_end = value.end, self._comma("}")
        self._at += 1
        node.end = self._at
        return node

    def _array(self) -> _Node:
        node = _Node([], self._at, 0)
        self._at += 1
        while self._skip() != "]":
            node.value.append(self._value().value)
            self._comma("]")
        self._at += 1
        node.end = self._at
        return node

    def _comma(self, end: str) -> int | None:
        """Skip the comma after a value; returns where it ends, None if the value is the last and has none."""
        if (found := self._skip()) == ",":
            self._at += 1
            return self._at
        if found != end:
            raise self._fault(f"',' or '{end}' is expected")
        return None
