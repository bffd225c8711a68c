"""Numbers end where further digits would not change them, and nothing else is bounded."""

import json
import math
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from draftd.engine.generation.drafters.grammar import Grammar
from draftd.engine.grammars.numbers import LONGEST, Numbers, is_complete

BYTES = LLTokenizer("byte")  # a token for each byte, and one for the end
END = BYTES.eos_token
NUMBERS = Numbers(lambda token: BYTES.decode_bytes([token]), BYTES.vocab_size)
DIGITS = st.text("0123456789", max_size=30)


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("0." + "3" * 16, False),
        ("0." + "3" * 17, True),
        ("-12." + "3" * 15, True),
        ("0.000000000000000000000012", False),
        ("0." + "0" * LONGEST, True),
        ("1" * 40, False),
        ("1" * LONGEST, True),
        ("1" * 20 + ".", False),
        ("1" * 20 + ".5", True),
        ("1e5", False),
        ("1.5e-0300", True),
        ('"x", ' + "1." + "5" * 17, True),
        ('"x", ' + "1." + "5" * 17 + ", ", False),
        ("", False),
    ],
)
def test_a_number_is_complete_where_it_has_said_what_it_can(text: str, complete: bool) -> None:
    assert is_complete(text.encode()) is complete


@given(whole=DIGITS, fraction=DIGITS, exponent=st.none() | st.integers(-9999, 9999), more=DIGITS)
def test_no_further_digit_would_make_a_complete_number_another_one(
    whole: str, fraction: str, exponent: int | None, more: str
) -> None:
    text = f"{whole.lstrip('0') or '0'}.{fraction or '0'}" + ("" if exponent is None else f"e{exponent}")
    if is_complete(text.encode()):
        before, after = float(text), float(text + more)
        assert math.isclose(before, after, rel_tol=4e-16) or before == after


def written(schema: Any, wanted: str) -> str:
    """Return what comes of a text that is to be written on and on, as far as its characters may follow."""
    made = LLMatcher(BYTES, f"start: %json {json.dumps(schema)}")
    assert not made.is_error(), made.get_error()
    grammar = Grammar(made, BYTES.vocab_size, [END], numbers=NUMBERS)
    tokens: list[int] = []
    for character in wanted.encode():
        row: Any = grammar.mask(mx.zeros((1, BYTES.vocab_size)), [])[0].tolist()
        if math.isinf(row[character]):
            break
        tokens.append(character)
        grammar.take(character)
    return bytes(tokens).decode()


LIST: Any = {"type": "array", "items": {"type": "number"}}


def test_a_model_that_writes_digits_on_and_on_comes_to_an_end() -> None:
    assert written(LIST, "[0." + "3" * 400) == "[0." + "3" * 17
    assert written(LIST, "[0." + "3" * 17 + ", 1e" + "9" * 400) == "[0." + "3" * 17 + ", 1e9999"
    assert written(LIST, "[" + "7" * 400) == "[" + "7" * LONGEST


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string"}, '"0.' + "3" * 60 + '"'),
        ({"type": "string", "pattern": "^[0-9]\\.[0-9]{40}$"}, '"0.' + "3" * 40 + '"'),
        ({"const": [0.1]}, "[0.1]"),
        (LIST, "[0.25, 6.02214076e23, 100000000000000000000000000000]"),
    ],
)
def test_texts_and_whatever_has_to_be_are_as_long_as_they_are(schema: Any, text: str) -> None:
    assert written(schema, text) == text


def test_a_draft_is_held_to_it_at_each_of_its_places() -> None:
    made = LLMatcher(BYTES, f"start: %json {json.dumps(LIST)}")
    grammar = Grammar(made, BYTES.vocab_size, [END], numbers=NUMBERS)
    for character in b"[0." + b"3" * 15:
        grammar.take(character)
    rows: Any = grammar.mask(mx.zeros((4, BYTES.vocab_size)), list(b"33]")).tolist()
    assert [math.isinf(row[ord("3")]) for row in rows] == [False, False, True, True]
    assert not math.isinf(rows[2][ord("]")])
