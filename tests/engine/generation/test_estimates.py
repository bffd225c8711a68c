"""What drafting is expected to cost, to yield and to be worth, by hand."""

import pytest

from draftd.engine.generation.acceptance import AcceptanceCount
from draftd.engine.generation.estimates import (
    AcceptanceEstimate,
    CostModel,
    DecayingMean,
    Overhead,
    interpolated,
    speedup,
)
from draftd.protocol import Costs

COSTS = Costs(single=10.0, draft=1.0, verify=15.0)
MODEL = CostModel(single=10.0, draft=1.0, verify=(10.0, 10.5, 11.0, 11.5, 12.0))


def counted(draft_length: int | None, max_tokens: int, from_draft: list[bool]) -> AcceptanceCount:
    count = AcceptanceCount(draft_length, max_tokens)
    for kept in from_draft:
        count.observe(kept)
    return count


@pytest.mark.parametrize(
    ("from_draft", "expected"),
    [
        ([True, True, False], 3 * 10 / (2 + 15)),
        ([False, False], 2 * 10 / (2 * 2 + 2 * 15)),  # all refused: slower than without
        ([True, False, True, True, False], 5 * 10 / (2 * 2 + 2 * 15)),
    ],
)
def test_the_speed_up_is_time_without_by_time_with_drafting(from_draft: list[bool], expected: float) -> None:
    assert speedup(COSTS, counted(2, 99, from_draft)) == pytest.approx(expected)


def test_a_last_round_that_proposes_less_costs_less() -> None:
    assert speedup(COSTS, counted(2, 4, [True, True, False, True])) == pytest.approx(4 * 10 / (3 + 2 * 15))


def test_tokens_without_a_draft_take_the_time_of_no_drafting() -> None:
    count = counted(2, 99, [True, True, False])
    for _ in range(4):
        count.observe(False, proposed=0)
    assert speedup(COSTS, count) == pytest.approx(7 * 10 / (2 + 15 + 4 * 10))


def test_without_a_draft_there_is_no_estimate() -> None:
    assert speedup(COSTS, counted(0, 9, [False])) is None


def test_the_costs_of_a_record_are_those_of_its_draft_length() -> None:
    assert MODEL.costs_of(counted(3, 99, [True, False])) == Costs(10.0, 1.0, 11.5)
    assert MODEL.costs_of(counted(3, 2, [True, False])) == Costs(10.0, 1.0, 11.5)


def test_where_the_draft_length_changes_they_are_those_of_the_mean_round() -> None:
    count = AcceptanceCount(draft_length=None, max_tokens=99)
    for proposed in (1, 4, 4):
        count.observe(False, proposed)
    assert MODEL.costs_of(count) == Costs(10.0, 1.0, (10.5 + 2 * 12.0) / 3)


def test_the_mean_verification_is_that_of_the_rounds() -> None:
    assert MODEL.mean_verify([3, 3, 1]) == pytest.approx((2 * 11 + 11.5) / 3)
    assert MODEL.mean_verify([]) == 0


def test_the_best_rate_is_that_of_the_best_length() -> None:
    assert MODEL.best_rate([0.0] * 4) == pytest.approx(1 / 11.5)
    assert MODEL.best_rate([1.0] * 4) == pytest.approx(5 / 16)
    assert MODEL.best_rate([1.0, 1.0, 0.0, 0.0]) == pytest.approx(3 / 13)
    assert MODEL.best_rate([1.0] * 4, overhead=4.0) == pytest.approx(5 / 20)


def test_between_measured_lengths_costs_lie_on_a_line() -> None:
    assert interpolated({0: 1.0, 6: 5.0, 1: 3.0, 4: 9.0}) == [1, 3, 5, 7, 9, 7, 5]
    assert interpolated({0: 2.0}) == [2]


def test_a_mean_follows_what_comes_and_begins_with_a_guess() -> None:
    mean = DecayingMean(0.5)
    assert mean.value == 0.5
    for _ in range(200):
        mean.add(1.0)
    assert mean.value == pytest.approx(1.0, abs=0.01)


def test_in_another_text_less_is_believed_and_the_same_is_expected() -> None:
    old, fresh = DecayingMean(0.5), DecayingMean(0.5)
    for _ in range(200):
        old.add(1.0)
        fresh.add(1.0)
    fresh.begin_text()
    assert fresh.value == pytest.approx(old.value)
    old.add(0.0)
    fresh.add(0.0)
    assert fresh.value < old.value - 0.1


def test_a_round_tells_of_every_position_up_to_the_first_refused_one() -> None:
    estimate = AcceptanceEstimate(4)
    before = estimate.by_position(0)
    estimate.observe_round([], verified=4, kept=1)
    first, second, *others = estimate.by_position(0)
    assert first > before[0]
    assert second < before[1]
    assert others == before[2:]
    assert estimate.by_position(2) == others


def test_a_token_that_was_not_verified_counts_as_what_was_expected_of_it() -> None:
    estimate = AcceptanceEstimate(2)
    for _ in range(300):
        estimate.observe_round([0.99, 0.07], verified=1, kept=1)
    assert estimate.by_position(1) == [pytest.approx(estimate.by_confidence(0.07), abs=0.01)]


def test_what_would_have_been_kept_tells_of_every_position() -> None:
    estimate = AcceptanceEstimate(3)
    estimate.observe_undrafted([0.0] * 300)
    assert max(estimate.by_position(0)) < 0.01


def test_overhead_is_the_median_of_what_passes_took_beyond_their_cost() -> None:
    overhead = Overhead()
    for seconds in (1.0, 1.2, 9.0):
        overhead.add("drafted", seconds, cost=0.9)
    overhead.add("undrafted", 4.0, cost=2.0, passes=4)
    assert overhead.drafted == pytest.approx(0.3)
    assert overhead.undrafted == pytest.approx(0.5)


def test_overhead_is_never_negative_and_what_is_old_is_forgotten() -> None:
    overhead = Overhead()
    overhead.add("drafted", 1.0, cost=5.0)
    assert overhead.drafted == 0
    overhead.add("undrafted", 1.0, cost=0.5)
    assert overhead.undrafted == 0.5
    overhead.add("drafted", 61.0, cost=0.0)
    assert overhead.undrafted == 0
