"""When models read: passes and what is computed ahead; and reviews of what came alone."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import pytest

from draftd.engine.generation.choices import ALONE, MAX_LATE, REVIEW, Choice
from draftd.engine.generation.loop import Generation
from draftd.engine.generation.rounds import LOOK_BACK
from draftd.engine.generation.sampling import Greedy, Shape, Speculative
from tests.engine.generation.pairs import Models
from tests.engine.generation.toys import (
    ASTRAY,
    CYCLE,
    REVIEWED,
    Scripted,
    Toy,
    by_lookup,
    by_model,
    text_of,
    toy_generation,
)


def toys(generation: Generation) -> tuple[Toy, Toy]:
    readers: list[Any] = [generation.target, generation.draft and generation.draft.reader]
    return readers[0]._model, readers[1]._model


def test_alone_the_next_token_is_being_computed_while_one_is_given_out() -> None:
    generation = toy_generation(Greedy(), tokens=3, prompt=[0, 1])
    target, draft = toys(generation)
    passes = [list(target.passes) for _ in generation.generate()]
    assert passes == [[1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]], "and nothing after the last one"
    assert draft.passes == []


def test_a_round_is_one_pass_of_the_target_model() -> None:
    generation = toy_generation(Greedy(), by_model(4), tokens=11, prompt=[0, 1], target=CYCLE, draft=ASTRAY)
    target, draft = toys(generation)
    text_of(generation)
    assert target.passes[:3] == [1, 5, 5], "what is unread, and the draft"
    assert draft.passes[:4] == [2, 1, 1, 1], "the prompt is short enough to be read in the round"


def test_what_was_computed_ahead_is_given_out_before_a_round() -> None:
    generation = toy_generation(Greedy(), [Choice(ALONE), *by_model(3)], tokens=9, prompt=[0], target=CYCLE)
    target, _ = toys(generation)
    sources = [token.drafter for token in generation.generate()]
    assert sources[:4] == [ALONE, ALONE, ALONE, ALONE]
    assert target.passes[:2] == [1, 1]
    policy: Any = generation.policy
    assert {choice for choice, _ in policy.taken if not choice.length} == {Choice(ALONE)}


@pytest.mark.parametrize("unread", [MAX_LATE, MAX_LATE + 1])
def test_a_draft_model_that_is_far_behind_reads_on_before_the_round_is_timed(unread: int) -> None:
    generation = toy_generation(Greedy(), by_model(1), tokens=2, prompt=[n % 4 for n in range(unread)])
    _, draft = toys(generation)
    text_of(generation)
    assert draft.passes[:2] == ([unread] if unread <= MAX_LATE else [unread - 1, 1])


def test_after_a_rest_the_draft_model_proposes_what_it_always_would(
    models: Models, prompts: list[list[int]]
) -> None:
    def of_rounds(*script: Choice) -> list[tuple[int, int]]:
        policy = Scripted(*script)
        text_of(models.generation(prompts[0], policy, tokens=90, lookup=False))
        position, kept = len(prompts[0]), iter(policy.judgements)
        by_position = []
        for choice, depth in policy.taken:
            assert depth >= position
            if choice.length:
                by_position.append((depth, next(kept)[3]))
        return by_position

    always = dict(of_rounds(*by_model(1)))
    rested = of_rounds(*[Choice(ALONE)] * 20, *by_model(*[1] * 10))
    same = [(depth, kept) for depth, kept in rested if depth in always]
    assert len(same) >= 8
    assert [always[depth] for depth, _ in same] == [kept for _, kept in same]


def test_the_policy_is_told_what_the_draft_model_read_outside_of_rounds(models: Models) -> None:
    policy = Scripted(*[Choice(ALONE)] * 20, Choice(REVIEW), *by_model(1, 1))
    text_of(models.generation(list(range(1, 41)), policy, tokens=50, lookup=False))
    assert policy.read[0] == 60
    assert all(length > MAX_LATE for length in policy.read)
    assert len(policy.read) == 2


def reviewed(script: Sequence[Choice], **others: Any) -> list[float]:
    generation = toy_generation(
        Greedy(), script, tokens=60, prompt=[0, 1, 2, 3, 0, 1, 2], target=CYCLE, draft=ASTRAY, **others
    )
    policy: Any = generation.policy
    tokens = generation.generate()
    while not policy.shares and next(tokens, None):
        pass
    tokens.close()
    assert generation.draft
    assert generation.draft.reader.position <= len(generation.text)
    return list(policy.shares)


def test_a_review_tells_what_the_draft_model_would_have_proposed_for_what_came_alone() -> None:
    # The answer is 3, 0, 1, 2, 3, 0: the draft model is wrong about each 3.
    assert reviewed([Choice(ALONE)] * 6 + [REVIEWED]) == [False, True, True, True, False, True]


def test_no_more_tokens_are_reviewed_than_a_few() -> None:
    shares = reviewed([Choice(ALONE)] * 50 + [REVIEWED])
    assert len(shares) == LOOK_BACK
    assert shares == [True, True, False, True] * (LOOK_BACK // 4)


def test_tokens_of_a_lookup_in_between_are_not_taken_for_tokens_that_came_alone() -> None:
    script = [Choice(ALONE)] * 6 + by_lookup(2, 2) + [Choice(ALONE)] * 2 + [REVIEWED]
    # 3 0 1 2 3 0 1 alone (one was computed ahead), then 2 3 0 of a lookup, then 1 2.
    assert reviewed(script) == [True, True]


def test_a_review_of_sampled_tokens_is_how_likely_drafts_were_to_be_kept() -> None:
    mx.random.seed(1)
    generation = toy_generation(
        Speculative(Shape(1.0)),
        [Choice(ALONE)] * 30 + [REVIEWED],
        tokens=1200,
        prompt=[0],
        target=CYCLE,
        draft=ASTRAY,
    )
    text = text_of(generation)
    policy: Any = generation.policy
    common = [sum(map(min, p, q)) for p, q in zip(CYCLE, ASTRAY, strict=True)]
    expected = sum(common[last] for last in text) / len(text)
    assert len(policy.shares) > 1000
    assert sum(policy.shares) / len(policy.shares) == pytest.approx(expected, abs=0.05)


def test_what_the_draft_model_has_read_it_does_not_review() -> None:
    assert reviewed([*by_model(2), REVIEWED]) == []
