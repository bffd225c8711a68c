"""One draft length for several rows: on simulated machines it is about the best one, and none where none pays."""

import random
from collections.abc import Callable

import pytest

from draftd.engine.generation.batch_policy import MAX_REST, BatchPolicy, Row
from draftd.engine.generation.choices import ALONE, REVIEW, Choice, Situation
from draftd.engine.generation.policy import FIRST_TIMES, DraftPolicy
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER
from tests.engine.generation.worlds import SINGLE, slope, stairs

DRAFT = 0.1  # passes of the target model that one of the draft model takes
Rows = Callable[[int], float]


def seconds(rows: Rows, count: int, choices: list[Choice]) -> float:
    """Return how long a round takes: padded rows cost as much as others."""
    length = max(choice.length for choice in choices)
    by_model = max((choice.length for choice in choices if choice.source == MODEL_DRAFTER), default=0)
    return SINGLE * (rows(count * (length + 1)) + by_model * DRAFT * rows(count))


def kept(rng: random.Random, length: int, share: float) -> int:
    return next((n for n in range(length) if rng.random() >= share), length)


def speed(machine: Rows, count: int, share: float, *, fixed: int | None = None, rounds: int = 3000) -> float:
    """Return tokens per second of `count` rows together; with a fixed length for all, that of the best guess."""
    rng, policy = random.Random(3), BatchPolicy()
    rows = [Row(DraftPolicy(), Situation(500, 10_000, model=8)) for _ in range(count)]
    made = taken = 0.0
    for _ in range(rounds):
        if fixed is None:
            choices = policy.choose(rows)
        else:
            choices = [Choice(MODEL_DRAFTER, fixed) if fixed else Choice(ALONE)] * count
        if choices[0].source == REVIEW:
            for row in rows:
                row.policy.would_have_kept([share] * 32)
            taken += 3 * DRAFT * SINGLE * count
            continue
        took = seconds(machine, count, choices) * rng.uniform(0.9, 1.1)
        policy.took(rows, choices, took)
        taken += took
        for row, choice in zip(rows, choices, strict=True):
            of_draft = kept(rng, choice.length, share)
            made += of_draft + 1
            if choice.length:
                row.policy.judged(choice.source, 0, choice.length, of_draft)
    return made / taken


@pytest.mark.one_in(7)
@pytest.mark.parametrize(
    "machine", [stairs, slope(0.03), slope(0.3), slope(1.0)], ids=["stairs", "3 %", "30 %", "1"]
)
@pytest.mark.parametrize("share", [0.3, 0.65, 0.9])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_it_is_about_as_fast_as_the_best_length_and_never_slower_than_none(
    machine: Rows, share: float, count: int
) -> None:
    none, *others = (speed(machine, count, share, fixed=length, rounds=800) for length in (0, 1, 2, 3, 5, 8))
    ours = speed(machine, count, share)
    assert ours >= 0.94 * max(none, *others)
    assert ours >= 0.97 * none


def test_on_a_staircase_eight_clients_get_much_more_by_drafts() -> None:
    ours, none = speed(stairs, 8, 0.65), speed(stairs, 8, 0.65, fixed=0)
    one_by_one = max(speed(stairs, 1, 0.65, fixed=length) for length in range(9))
    assert ours >= 1.25 * none
    assert ours >= 1.25 * one_by_one


def policy_that_knows(costs: dict[tuple[str, int], float], rows: list[Row]) -> BatchPolicy:
    policy = BatchPolicy()
    for (source, length), took in costs.items():
        for _ in range(FIRST_TIMES):
            policy.took(rows, [Choice(source, length)] * len(rows), took)
    return policy


def test_nothing_is_compared_before_a_round_without_a_draft_was_timed() -> None:
    rows = [Row(DraftPolicy(), Situation(100, 50, model=4))] * 2
    policy = BatchPolicy()
    for _ in range(FIRST_TIMES):
        assert policy.choose(rows) == [Choice(ALONE)] * 2
        policy.took(rows, [Choice(ALONE)] * 2, 0.1)
    assert policy.choose(rows)[0].source == MODEL_DRAFTER


def test_each_row_drafts_from_what_promises_more_for_it_and_no_more_than_it_may() -> None:
    rows = [
        Row(DraftPolicy(), Situation(100, 50, match=20, lookup=64, model=8)),
        Row(DraftPolicy(), Situation(100, 50, model=8)),
        Row(DraftPolicy(fixed=2), Situation(100, 50, model=8)),
        Row(DraftPolicy(), Situation(100, 1, model=8)),
        Row(DraftPolicy(), Situation(100, 50)),
    ]
    costs = {(ALONE, 0): 0.1} | {(MODEL_DRAFTER, n): 0.1 if n <= 4 else 9.0 for n in range(1, 9)}
    costs |= {(LOOKUP_DRAFTER, n): 9.0 for n in (1, 2, 3)}
    choices = policy_that_knows(costs, rows).choose(rows)
    model = [Choice(MODEL_DRAFTER, n) for n in (4, 2, 1)]
    assert choices == [Choice(LOOKUP_DRAFTER, 4), *model, Choice(ALONE)]


def test_costs_are_learnt_for_each_number_of_rows() -> None:
    one = Row(DraftPolicy(), Situation(100, 50, model=4))
    policy = policy_that_knows({(ALONE, 0): 0.1, (MODEL_DRAFTER, 1): 9.0}, [one] * 2)
    assert policy.choose([one] * 2) == [Choice(ALONE)] * 2
    for _ in range(FIRST_TIMES):
        policy.took([one] * 3, [Choice(ALONE)] * 3, 0.1)
    assert policy.choose([one] * 3)[0].length > 0


def test_after_a_long_rest_the_draft_models_are_reviewed() -> None:
    rows = [Row(DraftPolicy(), Situation(100, 500, model=4)), Row(DraftPolicy(), Situation(100, 500))]
    policy = policy_that_knows({(ALONE, 0): 0.1, (MODEL_DRAFTER, 1): 9.0}, rows)
    chosen = [policy.choose(rows) for _ in range(MAX_REST + 1)]
    assert chosen[:-1] == [[Choice(ALONE)] * 2] * MAX_REST
    assert chosen[-1] == [Choice(REVIEW), Choice(ALONE)]
