"""toml_lines: a key is found on the line on which it was written."""

from __future__ import annotations

import json
import time
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from draftd.toml_lines import fault_of, joined, line_of, nul_in, read_toml, reason_of

TEXT = """\
# model = "a comment"
model = "a"

  port  =  1
"quoted" = 1
'literal'=2
restart.window = 4
health . "interval" = 3
aliases = [
  "x",
  "y = z",
]
template = '''
seed = 1
[limits]
'''
[defaults] # request defaults
temperature = 0.5
seed = 2
chat_template_kwargs = { deep = true }
[ server ]
prompt-cache-size = 1
[limits]
queue = 1
[unknown.part]
x = 1
[[many]]
y = 1
"""


@pytest.mark.parametrize(
    ("loc", "line"),
    [
        (("model",), 2),
        (("port",), 4),
        (("quoted",), 5),
        (("literal",), 6),
        (("restart", "window"), 7),
        (("health", "interval"), 8),
        (("aliases", 1), 9),
        (("template",), 13),
        (("defaults",), 17),
        (("defaults", "temperature"), 18),
        (("defaults", "seed"), 19),
        (("defaults", "chat_template_kwargs", "deep"), 20),
        (("server", "prompt_cache_size"), 22),
        (("server", "prompt-cache-size"), 22),
        (("restart", "missing"), 7),
        (("limits", "queue"), 24),
        (("limits", "missing"), 23),
        (("unknown",), 25),
        (("unknown", "part", "x"), 26),
        (("many", 0, "y"), 28),
        (("missing",), None),
        (("model_", "a"), None),
        ((), None),
    ],
    ids=str,
)
def test_a_key_is_found_where_it_stands_and_else_its_table(
    loc: tuple[str | int, ...], line: int | None
) -> None:
    assert tomllib.loads(TEXT)
    assert line_of(TEXT, loc) == line


def test_lines_are_counted_as_an_editor_counts_them() -> None:
    assert line_of('a = "\u2028 \x85"\r\nb = 1\r\n', ("b",)) == 2
    assert line_of("", ("b",)) is None


# --- any document -------------------------------------------------------------------------------------------

names = st.text("abcxyz_", min_size=1, max_size=4)
tricky = st.sampled_from(["a = 1", "[b]", "x = '", "# c", '"', "", "]", "y.z = 2"])
texts = st.one_of(
    tricky.map(json.dumps),
    st.lists(tricky.map(lambda line: line.replace("'", "")), max_size=4).map(
        lambda lines: "'''\n" + "\n".join(lines) + "'''"
    ),
    st.lists(tricky.map(json.dumps), max_size=3).map(lambda items: "[\n" + ",\n".join(items) + "\n]"),
)
values = st.one_of(st.integers().map(str), st.booleans().map(lambda b: str(b).lower()), texts)
tables = st.dictionaries(names, values, max_size=4)
between = st.sampled_from(["", "\n", "# a = 1\n", "  \n\n"])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[tuple[str, ...], int]]:
    """A TOML text, and the line on which each key of it was written."""
    top = draw(tables)
    parts = {(): top} | {
        (name,): draw(tables) for name in draw(st.lists(names, unique=True, max_size=3)) if name not in top
    }
    text, lines = "", {}
    for table, keys in parts.items():
        text += f"[{table[0]}]\n" if table else ""
        for key, value in keys.items():
            text += draw(between)
            lines[(*table, key)] = text.count("\n") + 1
            text += f"{key}{draw(st.sampled_from([' = ', '=']))}{value}\n"
    return text, lines


@settings(deadline=None)  # tomllib takes long on a busy machine
@given(documents())
def test_each_key_of_a_document_is_found_on_its_line(
    document: tuple[str, dict[tuple[str, ...], int]],
) -> None:
    text, lines = document
    assert {loc: line_of(text, loc) for loc in lines} == lines


# --- reasons ------------------------------------------------------------------------------------------------


def parse_error(text: str) -> Exception:
    with pytest.raises((ValueError, RecursionError)) as caught:
        tomllib.loads(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a = 1\nb c\n", 2, "a key needs '=' and a value after it"),
        ("a = 1\n\nb = '''\nx\ny\n\n", 5, "a string is not closed: ''' is missing"),
        ('b = """\nx', 2, "a string is not closed: a quote is missing"),
        ('a = "x\n', 1, "a string is not closed on its line"),
        ("a = 'x\n", 1, "a string is not closed on its line"),
        ('a = "x', 1, "a string is not closed: a quote is missing"),
        ("a", 1, "a key needs '=' and a value after it"),
        ("a = 1\na = 2\n", 2, "this key is here for the second time"),
        ("[a]\n[a]\n", 2, "this table is here for the second time"),
        ("a = {b = 1, b = 2}", 1, "a key is in these braces for the second time"),
        ("a = \n", 1, "there is no value"),
        ("a = x", 1, "there is no value, or none that TOML knows: a string needs quotes"),
        ("= 1", 1, "a line is a key and its value"),
        ("a = 1 b = 2", 1, "there is something after the value"),
        ("[a", 1, "the name of a table is not closed: ']' is missing"),
        ("[[a]", 1, "the name of a table is not closed: ']]' is missing"),
        ("a = [1, 2\n", 1, "a list is not closed"),
        ("a = {b = 1", 1, "a table in braces is not closed"),
        (r'a = "x\q"', 1, "in double quotes a backslash is written twice"),
        ("a = 2026-02-31", 1, "there is no such date"),
        ("a = " + "1" * 5000, None, "a number has too many digits"),
        ("a = " + "[" * 5000, None, "nested too deeply"),
    ],
)
def test_a_text_that_is_not_toml_is_refused_with_line_and_reason(
    text: str, line: int | None, reason: str
) -> None:
    found, said = fault_of(text, parse_error(text))
    assert found == line
    assert said.startswith(f"not valid TOML: {reason}")
    assert "(at " not in said


@pytest.mark.parametrize(
    ("detail", "reason"),
    [
        ({"type": "extra_forbidden", "msg": "Extra", "input": "secret"}, "unknown key"),
        ({"type": "missing", "msg": "Field required", "input": {"a": 1}}, "this key is required"),
        ({"type": "tuple_type", "msg": "a valid tuple", "input": "x"}, "a list is expected (it is 'x')"),
        ({"type": "model_type", "msg": "a valid dictionary", "input": [1]}, "a table is expected"),
        ({"type": "int_type", "msg": "must be int", "input": 1.5}, "a whole number is expected (it is 1.5)"),
        (
            {"type": "less_than_equal", "msg": "", "ctx": {"le": 1.0}, "input": 3},
            "it must be at most 1 (it is 3)",
        ),
        ({"type": "less_than_equal", "msg": "no", "ctx": {}, "input": 3}, "no (it is 3)"),
        ({"type": "new_in_pydantic", "msg": "as it says", "input": 3}, "as it says (it is 3)"),
        ({"type": "value_error", "msg": "Value error, no", "input": "x" * 58}, f"no (it is '{'x' * 58}')"),
        ({"type": "value_error", "msg": "Value error, no", "input": "x" * 59}, "no"),
        ({"type": "value_error", "msg": "Value error, no"}, "no"),
    ],
)
def test_a_refusal_is_put_into_plain_words(detail: dict[str, object], reason: str) -> None:
    assert reason_of(detail) == reason


def test_a_value_of_several_types_has_one_reason_at_its_key() -> None:
    class Stops(BaseModel):
        stop: str | list[str]
        n: int

    with pytest.raises(ValidationError) as refused:
        Stops.model_validate({"stop": 3, "n": "x"})
    found = [(detail["loc"], reason_of(detail)) for detail in joined(refused.value.errors())]
    assert found == [
        (("stop",), "a string is expected, or a list is expected (it is 3)"),
        (("n",), "a whole number is expected (it is 'x')"),
    ]


# --- what would take long, or could be given to nobody ---------------------------------------------------


@pytest.mark.fault(221)
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\n" + ".".join(["a"] * 20_000) + " = 1\n", 2),
        ("[" + ".".join(["a"] * 20_000) + "]\n", 1),
        ("[[ " + " . ".join(['"a"'] * 40) + " ]]\n", 1),
    ],
)
def test_a_key_of_many_parts_is_refused_before_it_is_parsed(text: str, line: int) -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match="more than 32 parts") as caught:
        read_toml(text)
    assert time.process_time() - begun < 1  # tomllib took 5 s for the first
    assert fault_of(text, caught.value) == (line, "not valid TOML: a key has more than 32 parts")


def test_a_key_of_as_many_parts_as_anybody_writes_is_read() -> None:
    text = ".".join(f"a{number}" for number in range(32)) + " = 1\nb = '" + "a." * 100 + "'\n"
    assert read_toml(text) == tomllib.loads(text)


@pytest.mark.fault(221)
def test_places_are_found_in_a_text_of_many_lines_in_little_time() -> None:
    text = "".join(f"key{number} = {number}\n" for number in range(3_000))
    begun = time.process_time()
    assert [line_of(text, (f"key{number}",)) for number in range(0, 3_000, 100)] == list(range(1, 3_001, 100))
    assert time.process_time() - begun < 5  # it took minutes: each place parsed all that stood before it


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"command": ["a", "b\0c"]}, (("command", 1), "item 2 has a NUL (\\u0000) at its character 2")),
        ({"env": {"A": "\0"}}, (("env", "A"), "it has a NUL (\\u0000) at its character 1")),
        ({"env": {"A\0": "x"}}, (("env",), "there is a key with a NUL (\\u0000) in it")),
        (
            {"a": [{"b": ["x", ["y\0"]]}]},
            (("a", 0, "b", 1, 0), "item 1 has a NUL (\\u0000) at its character 2"),
        ),
        ({"a": [1, 2.0, True, None, "b"], "c": {}}, None),
    ],
)
def test_a_nul_is_found_wherever_it_is(value: object, found: tuple[tuple[str, ...], str] | None) -> None:
    told = nul_in(value)
    assert (told and (told[0], told[1].split(":")[0])) == found
