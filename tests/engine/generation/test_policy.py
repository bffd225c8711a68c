"""The draft length that adapts: its decisions, and its speed in simulated worlds of known costs."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from operator import mul

import pytest

from draftd.engine.generation.estimates import CostModel
from draftd.engine.generation.policy import (
    FIRST_UNDRAFTED,
    MAX_UNDRAFTED,
    AdaptiveLength,
    DraftPolicy,
    FixedLength,
)

MAX_LENGTH = 8
CHEAP = CostModel(single=0.010, draft=0.001, verify=tuple(0.010 + 0.0005 * n for n in range(MAX_LENGTH + 1)))
DEAR = CostModel(single=0.010, draft=0.006, verify=tuple(0.011 + 0.004 * n for n in range(MAX_LENGTH + 1)))
STEPPED = CostModel(
    single=0.010, draft=0.001, verify=(0.010, *(0.018 + 0.0005 * n for n in range(MAX_LENGTH)))
)

World = Callable[[random.Random], tuple[float, float]]
"""Draws a draft token: the draft model's probability of it, and how likely it is to be kept."""


def even(share: float) -> World:
    return lambda rng: (share, share)


def known(share: float) -> World:
    """Some tokens are nearly certain, the others hopeless, and the draft model can tell which."""
    return lambda rng: (0.99, 0.98) if rng.random() < share else (0.15, 0.1)


def speed(
    policy: DraftPolicy,
    costs: CostModel,
    world: World,
    tokens: int = 12_000,
    pace: float = 1,
    extra: tuple[float, float] = (0, 0),
) -> float:
    """Tokens per second of simulated time. All takes `pace` times as long as expected, and each token alone and
    each round `extra` seconds more.
    """
    rng = random.Random(1)
    made, seconds = 0, 0.0
    while made < tokens:
        if alone := policy.undrafted_tokens():
            took = alone * (costs.single * pace + extra[0])
            made, seconds = made + alone, seconds + took
            policy.observe_undrafted([world(rng)[1] for _ in range(16)])
            policy.observe_time(alone, took)
            continue
        look = policy.look()
        drafted: list[tuple[float, float]] = []
        looks = 0
        while (burst := policy.tokens_to_draft([q for q, _ in drafted])) > 0:
            drafted += [world(rng) for _ in range(burst)]
            if look != "before":
                break
            looks += 1
        confidences = [q for q, _ in drafted]
        verified = policy.tokens_to_verify(confidences) if look == "before" else len(drafted)
        kept = sum(accumulate((rng.random() < share for _, share in drafted[:verified]), mul))
        policy.observe_round(confidences if look != "never" else [], verified, kept)
        expected = len(drafted) * costs.draft + costs.verify[verified] + looks * costs.look
        took = expected * pace + extra[1]
        made, seconds = made + kept + 1, seconds + took
        policy.observe_time(kept + 1, took)
    return made / seconds


WORLDS = {
    "easy": even(0.95),
    "usual": even(0.75),
    "hard": even(0.3),
    "hopeless": even(0.02),
    "mostly certain": known(0.85),
    "seldom certain": known(0.3),
}


@pytest.mark.parametrize(
    "costs", [CHEAP, DEAR, STEPPED], ids=["cheap draft", "dear draft", "dear second row"]
)
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_it_is_as_fast_as_the_best_fixed_length_and_as_no_drafting(world: World, costs: CostModel) -> None:
    fixed = [speed(FixedLength(length), costs, world) for length in range(1, MAX_LENGTH + 1)]
    assert speed(AdaptiveLength(costs), costs, world) >= 0.97 * max(*fixed, 1 / costs.single)


def test_where_certain_and_hopeless_tokens_mix_it_is_faster_than_every_fixed_length() -> None:
    fixed = [speed(FixedLength(length), CHEAP, known(0.6)) for length in range(1, MAX_LENGTH + 1)]
    assert speed(AdaptiveLength(CHEAP), CHEAP, known(0.6)) > 1.1 * max(fixed)


def test_it_recovers_when_the_text_becomes_easy_again() -> None:
    policy = AdaptiveLength(CHEAP)
    speed(policy, CHEAP, even(0.02))
    speed(policy, CHEAP, even(0.95), tokens=1000)
    assert policy.undrafted_tokens() == 0
    assert policy.tokens_to_draft([]) > 3


def test_when_drafting_loses_the_target_model_goes_on_alone_for_longer_and_longer() -> None:
    policy = AdaptiveLength(CHEAP)
    stretches = []
    for _ in range(6):
        policy.observe_undrafted([0.0] * 50)
        stretches.append(policy.undrafted_tokens())
    assert stretches == [FIRST_UNDRAFTED, 32, 64, 128, MAX_UNDRAFTED, MAX_UNDRAFTED]


def test_another_request_is_judged_by_its_own_text() -> None:
    policy = AdaptiveLength(CHEAP)
    speed(policy, CHEAP, even(0.02))
    policy.begin_request()
    assert policy.undrafted_tokens() == FIRST_UNDRAFTED
    policy.observe_undrafted([0.95] * 32)
    assert policy.undrafted_tokens() == 0
    assert policy.tokens_to_draft([]) > 3


def test_an_unsure_token_ends_the_draft_and_is_not_verified() -> None:
    policy = AdaptiveLength(CHEAP)
    for _ in range(50):
        policy.observe_round([0.99] * 4 + [0.1], 5, 4)
    assert policy.tokens_to_draft([0.99, 0.99, 0.1]) == 0
    assert policy.tokens_to_verify([0.99, 0.99, 0.1]) == 2
    assert policy.tokens_to_verify([0.1]) == 0
    assert policy.tokens_to_draft([0.99, 0.99]) > 0


@pytest.mark.parametrize("extra", [(0.0, 0.006), (0.006, 0.0), (0.010, 0.010)])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_where_passes_take_longer_than_priced_it_goes_by_the_time_that_they_take(
    world: World, extra: tuple[float, float]
) -> None:
    fixed = [speed(FixedLength(length), CHEAP, world, extra=extra) for length in range(1, MAX_LENGTH + 1)]
    best = max(*fixed, 1 / (CHEAP.single + extra[0]))
    assert speed(AdaptiveLength(CHEAP), CHEAP, world, extra=extra) >= 0.95 * best


@pytest.mark.parametrize("pace", [0.4, 2.0])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_where_the_machine_was_busier_or_idler_when_it_was_timed_it_does_nearly_as_well(
    world: World, pace: float
) -> None:
    fixed = [speed(FixedLength(length), CHEAP, world, pace=pace) for length in range(1, MAX_LENGTH + 1)]
    assert speed(AdaptiveLength(CHEAP), CHEAP, world, pace=pace) >= 0.9 * max(
        *fixed, 1 / (pace * CHEAP.single)
    )


def test_a_look_is_taken_only_where_it_gains_more_than_it_costs() -> None:
    free, cheap, dear = (replace(CHEAP, look=seconds) for seconds in (0.0, 0.0002, 0.02))
    assert speed(AdaptiveLength(cheap), cheap, known(0.6)) > 1.08 * speed(FixedLength(2), CHEAP, known(0.6))
    best = max(speed(FixedLength(length), CHEAP, known(0.6)) for length in range(1, MAX_LENGTH + 1))
    policy = AdaptiveLength(dear)
    assert speed(policy, dear, known(0.6)) >= 0.97 * best
    assert policy.look() != "before"
    policy = AdaptiveLength(free)
    assert speed(policy, free, known(0.6)) > 1.1 * best
    assert policy.look() == "before"
    speed(policy, free, even(0.95))
    assert policy.look() != "before", "tokens that are all as likely need no look"


def test_no_more_is_drafted_than_there_are_prices_for() -> None:
    policy = AdaptiveLength(CHEAP)
    for _ in range(50):
        policy.observe_round([1.0] * MAX_LENGTH, MAX_LENGTH, MAX_LENGTH)
    assert policy.tokens_to_draft([]) == MAX_LENGTH
    assert policy.tokens_to_draft([1.0] * MAX_LENGTH) == 0
