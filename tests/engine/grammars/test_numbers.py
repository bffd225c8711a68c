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
from draftd.engine.grammars.numbers import LONGEST, Numbers, further

BYTES = LLTokenizer("byte")  # a token for each byte, and one for the end
END = BYTES.eos_token
NUMBERS = Numbers(
    lambda token: BYTES.decode_bytes([token]), 256
)  # llguidance's masks have one more word, for the end
DIGITS = st.text("0123456789", max_size=30)


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("0." + "3" * 16, 1),
        ("0." + "3" * 17, 0),
        ("-12." + "3" * 15, 0),
        ("0.000000000000000000000012", 15),
        ("0." + "0" * LONGEST, 0),
        ("1" * 40, LONGEST - 40),
        ("1" * LONGEST, 0),
        ("1" * 20 + ".", 1),
        ("1" * 20 + ".5", 0),
        ("1e", 2),
        ("1e+5", 1),
        ("1.5e30", 0),
        ("1.5e-30", 1),
        ('"x", ' + "1." + "5" * 17, 0),
        ('"x", ' + "1." + "5" * 17 + ", ", None),
        ("", None),
    ],
)
def test_as_many_digits_may_follow_as_say_something(text: str, more: int | None) -> None:
    assert further(text.encode()) == more


@given(whole=DIGITS, fraction=DIGITS, more=DIGITS)
def test_no_further_digit_would_make_a_number_another_one(whole: str, fraction: str, more: str) -> None:
    text = f"{whole.lstrip('0') or '0'}.{fraction or '0'}"
    if further(text.encode()) == 0:
        assert math.isclose(float(text), float(text + more), rel_tol=4e-16)


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
    assert written(LIST, "[0." + "3" * 17 + ", 1e" + "9" * 400) == "[0." + "3" * 17 + ", 1e99"
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


def test_a_token_of_several_digits_does_not_go_beyond_it() -> None:
    texts = [b",", b'"', *(b"%d" % n for n in range(1, 10)), b"22", b"221", b"221,"]
    numbers = Numbers(texts.__getitem__, len(texts))
    everything_but_a_quote = (0b11111111111101).to_bytes(4, "little")

    def left(tail: bytes) -> list[bytes]:
        words = int.from_bytes(numbers.bounded(everything_but_a_quote, tail), "little")
        return [text for place, text in enumerate(texts) if words >> place & 1]

    assert left(b"[1.5e")[-2:] == [b"9", b"22"]
    assert left(b"[1.5e4")[-1] == b"9"
    assert left(b"[1.5e44") == [b","]
    assert left(b"[1.5e-")[-1] == b"221,"
