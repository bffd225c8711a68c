"""The rule by which two greedy texts count as the same, tried on both sides of its limit."""

from __future__ import annotations

from tests.ties import Token, is_tie, may_differ, noise_of, tokens_of_completion, verdict


def token(text: str, **likeliest: float) -> Token:
    return Token(text, likeliest[text], likeliest)


PLAIN = [token("a", a=-0.10, b=-3.0), token("b", b=-0.5, c=-0.6), token("d", d=-0.1)]


def drafted(moved: float) -> list[Token]:
    """Another text after the first token, and this much of noise in that one."""
    return [token("a", a=-0.10 + moved, b=-3.0), token("c", c=-0.5, b=-0.7), token("d", d=-0.1)]


def test_the_same_text_is_the_same() -> None:
    assert verdict(PLAIN, PLAIN, 0.0) == "the same"


def test_texts_may_part_where_two_tokens_are_as_near_as_the_rounding() -> None:
    near, far = drafted(0.06), drafted(0.04)
    assert verdict(PLAIN, near, noise_of(PLAIN, near)).startswith("a tie at 1 ")
    assert verdict(PLAIN, far, noise_of(PLAIN, far)).startswith("NO at 1 ")


def test_the_place_where_texts_part_is_no_measure_of_the_noise() -> None:
    """Otherwise any wrong text would excuse itself."""
    wrong = [token("b", b=-0.01, a=-9.0)]
    assert noise_of(PLAIN, wrong) == 0.0
    assert verdict(PLAIN[:1], wrong, noise_of(PLAIN, wrong)).startswith("NO at 0 ")


def test_a_token_that_was_not_among_the_likeliest_is_no_tie() -> None:
    assert verdict([token("a", a=-0.1)], [token("z", z=-0.1)], 100.0).startswith("NO at 0 (gap inf")


def test_texts_of_two_lengths_differ() -> None:
    assert verdict(PLAIN, PLAIN[:2], 1.0) == "NO at the end: 3 and 2 tokens"


def test_texts_that_part_at_a_tie_may_go_on_as_long_as_they_like() -> None:
    assert may_differ(PLAIN, drafted(0.06)[:2]) == ""
    assert may_differ(PLAIN, drafted(0.04)[:2]).startswith("NO at 1 ")


def test_the_bound_belongs_to_the_tie() -> None:
    assert is_tie(0.2, 0.1)
    assert not is_tie(0.2001, 0.1)


def test_a_token_is_read_from_an_answer() -> None:
    item = {"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "b", "logprob": -1.0}]}
    assert Token.of(item) == Token("a", -0.1, {"b": -1.0})
    legacy = {"tokens": ["a"], "token_logprobs": [-0.1], "top_logprobs": [{"b": -1.0}], "text_offset": [0]}
    assert tokens_of_completion(legacy) == [Token.of(item)]
