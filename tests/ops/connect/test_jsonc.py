"""jsonc: keys are set in the text; every comment, every other key and their places stay."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.ops.connect.jsonc import JsoncError, merge, parse

scalars = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=6)
keys = st.sampled_from(["model", "provider", "ours", "url", "limit", "context", "é", 'q"', "//", "/*", ","])
data = st.dictionaries(
    keys,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=8,
    ),
    max_size=4,
)


@st.composite
def written(draw: st.DrawFn, value: Any) -> str:
    """A value as somebody may have typed it, with numbered comments."""
    count = itertools.count()

    def gap() -> str:
        kind = draw(st.sampled_from(["", " ", "\n", "\r\n\t", "\n  ", "/**/", "//"]))
        mark = f'#{next(count)}# "}},{{" '
        return {"/**/": f"/*{mark}*/", "//": f" //{mark}\n"}.get(kind, kind)

    def show(value: Any) -> str:
        if not isinstance(value, dict | list):
            return json.dumps(value, ensure_ascii=draw(st.booleans()))
        if isinstance(value, dict):
            parts = [f"{json.dumps(key)}{gap()}:{gap()}{show(inner)}" for key, inner in value.items()]
        else:
            parts = [show(inner) for inner in value]
        body = ",".join(gap() + part + gap() for part in parts) + (
            "," if draw(st.booleans()) and parts else ""
        )
        return (
            ("{" if isinstance(value, dict) else "[")
            + body
            + gap()
            + ("}" if isinstance(value, dict) else "]")
        )

    return gap() + show(value) + gap()


files = data.flatmap(lambda value: st.tuples(st.just(value), written(value)))


def without_comments(text: str) -> str:
    """Another way to the same data than the one under test: for the standard library to read."""
    string = r'("(?:[^"\\]|\\.)*")'
    text = re.sub(rf"{string}|//[^\n]*|/\*.*?\*/", lambda m: m.group(1) or " ", text, flags=re.DOTALL)
    return re.sub(rf"{string}|,(?=\s*[}}\]])", lambda m: m.group(1) or "", text)


def merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}


@given(files)
def test_what_is_read_is_what_the_standard_library_reads(file: tuple[Any, str]) -> None:
    value, text = file
    assert parse(text) == json.loads(without_comments(text)) == value


@given(files, data)
def test_a_merge_sets_the_wanted_keys_and_no_other(file: tuple[Any, str], wanted: dict[str, Any]) -> None:
    value, text = file
    made = merge(text, wanted)
    assert json.loads(without_comments(made)) == merged(value, wanted)
    assert merge(made, wanted) == made


@given(files)
def test_no_comment_is_lost(file: tuple[Any, str]) -> None:
    value, text = file
    made = merge(text, {"fresh": {"deep": [1, {"er": 2}]}, "model": "new"})
    if not isinstance(value.get("model"), list | dict):  # a comment inside of what is replaced goes with it
        assert re.findall(r"#\d+#", made) == re.findall(r"#\d+#", text)


@given(files)
def test_adding_a_key_only_inserts(file: tuple[Any, str]) -> None:
    _, text = file
    rest = iter(merge(text, {"fresh": {"a": 1}}))
    assert all(char in rest for char in "".join(text.split()))  # every one that shows, in its order


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '{\n  "a": {\n    "b": 1\n  }\n}\n'),
        ("\ufeff \n", '{\n  "a": {\n    "b": 1\n  }\n}\n'),
        ("{}", '{\n  "a": {\n    "b": 1\n  }\n}'),
        ('{"x": 0}', '{"x": 0, "a": {"b": 1}}'),
        ('{"x": 0 /* why */}', '{"x": 0, "a": {"b": 1} /* why */}'),
        ('{"a": {"b": 2, "c": 3}}', '{"a": {"b": 1, "c": 3}}'),
        ('{"a": null}', '{"a": {"b": 1}}'),
        (
            '{\n    "x": 0 // why\n    // "y": 1\n}\n',
            '{\n    "x": 0, // why\n    "a": {\n        "b": 1\n    }\n    // "y": 1\n}\n',
        ),
        (
            '{\n\t"x": 0, // why\n\t// "y": 1\n}\n',
            '{\n\t"x": 0, // why\n\t"a": {\n\t\t"b": 1\n\t},\n\t// "y": 1\n}\n',
        ),
        ('{\r\n  "a": {}\r\n}\r\n', '{\r\n  "a": {\r\n    "b": 1\r\n  }\r\n}\r\n'),
        ("{\n  // none yet\n}\n", '{\n  "a": {\n    "b": 1\n  }\n  // none yet\n}\n'),
        ('{"x": 0 // why\n}', '{"x": 0, // why\n  "a": {\n    "b": 1\n  }\n}'),
        ('{"a": {"b": true}}', '{"a": {"b": 1}}'),
    ],
)
def test_the_new_text_looks_like_the_old(before: str, after: str) -> None:
    assert merge(before, {"a": {"b": 1}}) == after
    assert merge(after, {"a": {"b": 1}}) == after


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[1]", 1, "it must hold an object"),
        ('{"a": 1\n "b": 2}', 2, "',' or '}' is expected"),
        ("{a: 1}", 1, "a key in quotes is expected"),
        ('{"a" 1}', 1, "':' is expected after a key"),
        ('{"a": }', 1, "a value is expected"),
        ('{"a": "\n"}', 1, "a string is not valid"),
        ('{"a": "\\x"}', 1, "Invalid \\\\escape"),
        ("{}\n{}", 2, "there is something after the end"),
        ('{"a": 1', 1, "is expected"),
        ("{,}", 1, "a key in quotes is expected"),
        ('{"a": /* never closed', 1, "a value is expected"),
        ('{"a": ' + "[" * 5000, 1, "nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(JsoncError, match=reason) as caught:
        merge(text, {"a": 1})
    assert caught.value.line == line
