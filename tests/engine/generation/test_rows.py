"""Rows of several requests in one array: each gets its own numbers, and what is alike is done in one go."""

import random
from typing import Any

import mlx.core as mx
import pytest

from draftd.engine.generation.choosing import Verification, draw
from draftd.engine.generation.parts import Draw, Verify
from draftd.engine.generation.rows import Drawn, Fetched, Rows, lines_of
from draftd.engine.generation.sampling import Greedy, Rule, Seeded, Shape, Speculative

VOCABULARY = 8


def tokens(*numbers: int) -> list[Drawn]:
    fetched = Fetched(mx.array(list(numbers), mx.uint32))
    return [Drawn(fetched, place, mx.zeros((len(numbers), VOCABULARY))) for place in range(len(numbers))]


@pytest.mark.parametrize("padded", [0, 2])
def test_lines_have_known_tokens_and_such_as_are_still_being_computed(padded: int) -> None:
    a, b = tokens(10, 11, 12), tokens(20)
    texts: Any = [[1, a[2], 2], [a[0]], [], [b[0], a[1]], [7, 8, 9]]
    expected = [[1, 12, 2], [10], [], [20, 11], [7, 8, 9]]
    width = 3 + padded
    assert lines_of(texts, width).tolist() == [line + [0] * (width - len(line)) for line in expected]
    assert lines_of([[4, 5], [6]], width).tolist() == [[4, 5, *[0] * (1 + padded)], [6, *[0] * (2 + padded)]]
    assert lines_of([[one] for one in a], 1).tolist() == [[10], [11], [12]]
    for text, line in zip(texts, expected, strict=True):
        width = len(text) + padded
        alone = lines_of([text], width)
        assert (alone.dtype, alone.shape) == (mx.uint32, (1, width))
        assert alone.tolist() == [line + [0] * padded]
    assert lines_of([[7, a[1], b[0], a[0]]], 4).tolist() == [[7, 11, 20, 10]]


def a_pass(sequences: int, width: int) -> tuple[mx.array, mx.array]:
    """Return logits of which each row likes another token best, and what they stand after."""
    mx.random.seed(sequences)
    logits = mx.random.normal((sequences, width, VOCABULARY)) * 3
    return logits, mx.random.randint(0, VOCABULARY, (sequences, width)).astype(mx.uint32)


def peaked(logits: mx.array) -> mx.array:
    """Return logits that leave nothing to chance: so a draw can be compared."""
    return mx.where(logits == logits.max(axis=-1, keepdims=True), 0.0, -mx.inf)


RULES: list[Rule] = [
    Greedy(),
    Speculative(Shape(0.7)),
    Speculative(Shape(0.9, top_p=0.9)),
    Seeded(Shape(1.0), 3),
]


@pytest.mark.parametrize("sequences", [[0, 1, 2, 3], [1, 2], [3, 0], [2]])
@pytest.mark.parametrize("level", [True, False])
def test_what_is_drawn_in_one_go_is_what_each_row_has(sequences: list[int], level: bool) -> None:
    logits, lines = a_pass(4, 3)
    logits = peaked(logits)
    firsts = [2 if level else number % 3 for number in sequences]
    rules = [RULES[number % len(RULES)] for number in sequences]
    asked = {
        number: Draw(Rows(logits, lines, number, first, 1), rule, 5)
        for number, first, rule in zip(sequences, firsts, rules, strict=True)
    }
    for number, drawn in draw(asked).items():
        row = logits[number, firsts[sequences.index(number)]]
        assert drawn.token == mx.argmax(row).item()
        assert mx.argmax(drawn.row[0]).item() == drawn.token


@pytest.mark.parametrize("seed", range(4))
def test_drafts_of_different_lengths_are_verified_in_one_go_as_each_alone(seed: int) -> None:
    """Each row's draft is right up to a place of its own, and stands at a place of its own in the pass."""
    rng = random.Random(seed)
    logits, lines = a_pass(4, 6)
    chosen: Any = mx.argmax(logits, axis=-1).tolist()
    read: Any = lines.tolist()
    logits = peaked(logits)
    rule = RULES[seed % 3]
    asked = {}
    for number in rng.sample(range(4), rng.randint(2, 4)):
        first, count = rng.randint(0, 1), rng.randint(1, 4)
        right = rng.randint(0, count)
        for place in range(count):  # what was drafted after the rows from `first` on
            likeliest = chosen[number][first + place]
            read[number][first + place + 1] = likeliest if place < right else (likeliest + 1) % VOCABULARY
        asked[number] = (first, count, right)
    lines = mx.array(read, mx.uint32)
    shaped = mx.zeros((1, VOCABULARY))
    parts = {
        number: Verify(Rows(logits, lines, number, first, count + 1), rule, 0, [shaped] * count)
        for number, (first, count, _) in asked.items()
    }
    expected = {
        number: (read[number][first + 1 : first + 1 + right], chosen[number][first + right])
        for number, (first, _, right) in asked.items()
    }
    verification = Verification(parts)
    assert len(verification.arrays) == 1, "in one go"
    assert {key: (one.kept, one.after) for key, one in verification.answers().items()} == expected


def test_who_has_another_rule_or_other_logits_is_served_apart() -> None:
    logits, lines = a_pass(6, 1)
    own = Rows(logits, lines, 5, 0, 1).replaced(logits[5])
    rules: list[Rule] = [RULES[0], RULES[1], RULES[1], RULES[3], RULES[3], RULES[0]]
    views = [*(Rows(logits, lines, number, 0, 1) for number in range(5)), own]
    answers = draw({n: Draw(view, rule, 0) for n, (view, rule) in enumerate(zip(views, rules, strict=True))})
    groups = {id(drawn.tokens) for drawn in answers.values()}
    assert len(groups) == 5, "the two that are drawn alike share one, seeds never do"
    assert answers[1].tokens is answers[2].tokens
