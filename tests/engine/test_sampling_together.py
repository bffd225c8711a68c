"""Requests that are sampled in one pass: each is distributed as it is alone, and none depends on the others."""

from itertools import product
from typing import Any

import mlx.core as mx
import pytest

from draftd.engine import records
from draftd.engine.generation.batch_policy import BatchPolicy
from draftd.engine.generation.choices import Choice
from draftd.engine.generation.choosing import Verification
from draftd.engine.generation.parts import Verify
from draftd.engine.generation.policy import Row
from draftd.engine.generation.rows import Rows
from draftd.engine.generation.sampling import Shape, Speculative
from draftd.protocol import MODEL_DRAFTER
from tests.engine.architectures.models import make, noisy
from tests.engine.chance import chi_square, most_by_chance
from tests.engine.stand_in import Asked, Generator

WORDS = 12  # of the vocabulary
KINDS = 3  # of words, which are told apart
PROMPTS = ([3, 1, 4] * 7, [1, 4] * 10)  # long enough for the draft model to read after the first token
TEMPERATURES = (0.7, 1.6)
DRAWN = 300


@pytest.fixture(autouse=True)
def in_one_pass(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let all rows draft two tokens; return how many rows each pass had."""
    rows_of_passes: list[int] = []

    def choose(_: BatchPolicy, rows: list[Row]) -> list[Choice]:
        rows_of_passes.append(len(rows))
        return [row.drafting(MODEL_DRAFTER, 2) for row in rows]

    monkeypatch.setattr(BatchPolicy, "choose", choose)
    monkeypatch.setattr(records, "report_generation", lambda *_: None)
    return rows_of_passes


def shares(model: Any, prompt: list[int], temperature: float) -> list[float]:
    """Return how likely each pair of kinds is of a second and a third token."""
    texts = [[*prompt, *words] for words in product(range(WORDS), repeat=2)]
    p: Any = mx.softmax(model(mx.array(texts))[:, len(prompt) - 1 :] / temperature, axis=-1).tolist()
    pairs = [0.0] * KINDS**2
    for (first, second), (of_first, of_second, of_third) in zip(
        product(range(WORDS), repeat=2), p, strict=True
    ):
        for third in range(WORDS):
            chance = of_first[first] * of_second[second] * of_third[third]
            pairs[pair_of(second, third)] += chance
    return pairs


def pair_of(first: int, second: int) -> int:
    return first % KINDS * KINDS + second % KINDS


def is_by_chance(drawn: list[int], expected: list[float]) -> bool:
    return chi_square(drawn, expected) < most_by_chance(len(expected) - 1)


def test_rows_with_other_temperatures_draw_each_from_its_own_distribution_and_apart(
    in_one_pass: list[int],
) -> None:
    sizes: dict[str, Any] = {"vocab_size": WORDS}
    target = make("qwen2", **sizes)
    generator = Generator(target, noisy("qwen2", 0.3, **sizes), ends=False)
    pairs: list[list[int]] = [[], []]
    for _ in range(DRAWN):
        asked = [
            Asked(prompt, 3, draft=2, temperature=temperature)
            for prompt, temperature in zip(PROMPTS, TEMPERATURES, strict=True)
        ]
        for number, one in enumerate(generator.serve(*((0, each) for each in asked))):
            pairs[number].append(pair_of(*one.tokens[1:]))
    assert in_one_pass.count(2) >= DRAWN / 2
    expected = [shares(target, *each) for each in zip(PROMPTS, TEMPERATURES, strict=True)]
    for drawn, share in zip(pairs, expected, strict=True):
        assert is_by_chance(drawn, share)
    assert not is_by_chance(pairs[0], expected[1]), "else the test could not tell them apart"
    together = [pair_of(a % KINDS, b % KINDS) for a, b in zip(*pairs, strict=True)]
    of_last = [[sum(share[kind::KINDS]) for kind in range(KINDS)] for share in expected]
    assert is_by_chance(together, [a * b for a, b in product(*of_last)]), (
        "one draw tells nothing of the other"
    )


def test_the_same_request_twice_beside_itself_is_drawn_twice() -> None:
    generator = Generator(make("qwen2"), noisy("qwen2"), ends=False)
    asked = generator.serve(*[(0, Asked([5, 6], 30, draft=2, temperature=1.5)) for _ in range(2)])
    assert asked[0].tokens != asked[1].tokens


def test_drafts_that_were_drawn_are_weighed_beside_those_that_were_found() -> None:
    """A draft from the target model's own distribution is always kept; as a find, it would be one time in 50."""
    logits, tokens = mx.zeros((2, 2, 50)), mx.array([[1, 7], [1, 8]])
    found, drawn = (Rows(logits, tokens, row, 0, 2) for row in range(2))
    rule = Speculative(Shape(1.0))
    parts = {"found": Verify(found, rule, 0, []), "drawn": Verify(drawn, rule, 0, [logits[1, :1]])}
    for order in (["found", "drawn"], ["drawn", "found"]):
        answers = [Verification({name: parts[name] for name in order}).answers() for _ in range(20)]
        assert [each["drawn"].kept for each in answers] == [[8]] * 20
        assert sum(len(each["found"].kept) for each in answers) < 10
