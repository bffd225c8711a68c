"""Names and forms of log-probabilities."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from draftd.engine.answers.logprobs import IMPOSSIBLE, Chosen, TokenNames, chat_form, text_form


def names(tokens: list[Any] | None) -> TokenNames:
    """Names by mlx_lm's table of a tokenizer's tokens; by its `decode` where it has no table."""
    detokenizer = SimpleNamespace() if tokens is None else SimpleNamespace(tokenmap=tokens)
    return TokenNames(SimpleNamespace(detokenizer=detokenizer, decode=lambda ids: f"token {ids[0]}"))


@pytest.mark.parametrize(
    ("tokens", "data"),
    [
        (["Ġa"], b" a"),  # GPT-2's characters for bytes
        (["Ċ"], b"\n"),
        (["ðŁĺ"], b"\xf0\x9f\x98"),
        (["Ā"], b"\x00"),
        (["<|im_end|>"], b"<|im_end|>"),
        (["<｜end▁of｜>"], "<｜end▁of｜>".encode()),
        ([None], b""),
        (["\u2581a".encode()], b" a"),  # SentencePiece
        ([b"\xf0"], b"\xf0"),
        ([], b"token 0"),  # of a vocabulary that is padded
        (None, b"token 0"),
    ],
)
def test_the_bytes_of_a_token(tokens: list[Any] | None, data: bytes) -> None:
    assert names(tokens).bytes_of(0) == data


def test_the_bytes_of_all_characters_are_those_of_gpt2(pair: Any) -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    known = {names([character]).bytes_of(0) for character in ByteLevel.alphabet()}
    assert known == {bytes([byte]) for byte in range(256)}
    ((word, _),) = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str("é\n\xad☃ ~")
    assert b"".join(names([character]).bytes_of(0) for character in word).decode() == "é\n\xad☃ ~"


WORDS = names(["Ġone", "two", "Ġ", "ðŁĺ", "Ģ"])
TOKENS = [
    (0, Chosen(0, -0.5, ((1, -0.25), (0, -0.5)), trimmed=True)),
    (3, Chosen(1, -3.0, ((2, -0.25),))),
    (6, Chosen(3, -math.inf)),
    (6, Chosen(4, -1.0)),
]


def test_the_form_of_a_chat() -> None:
    form = chat_form(TOKENS, WORDS)
    first, second, third, fourth = form["content"]
    one = {"token": "one", "logprob": -0.5, "bytes": list(b"one")}
    two = {"token": "two", "logprob": -0.25, "bytes": list(b"two")}
    assert first == one | {"top_logprobs": [two, one]}
    assert second == two | {
        "logprob": -3.0,
        "top_logprobs": [{"token": " ", "logprob": -0.25, "bytes": [32]}],
    }
    assert (third["token"], third["logprob"], third["top_logprobs"]) == ("\ufffd", IMPOSSIBLE, [])
    assert bytes(third["bytes"] + fourth["bytes"]).decode() == "😀"


def test_of_likely_tokens_with_one_text_the_likeliest_counts() -> None:
    form = text_form([(0, Chosen(1, -3.0, ((3, -0.5), (4, -1.0))))], WORDS)
    assert form["top_logprobs"] == [{"\ufffd": -0.5, "two": -3.0}]


def test_the_form_of_a_text() -> None:
    assert text_form(TOKENS, WORDS) == {
        "tokens": ["one", "two", "\ufffd", "\ufffd"],
        "token_logprobs": [-0.5, -3.0, IMPOSSIBLE, -1.0],
        "top_logprobs": [
            {"two": -0.25, "one": -0.5},
            {" ": -0.25, "two": -3.0},
            {"\ufffd": IMPOSSIBLE},
            {"\ufffd": -1.0},
        ],
        "text_offset": [0, 3, 6, 6],
    }
