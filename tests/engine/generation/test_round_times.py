"""What is learnt of how long rounds take."""

import pytest

from draftd.engine.generation.choices import ALONE, REVIEW
from draftd.engine.generation.round_times import (
    ALONE_HOPE,
    FIRST_HOPE,
    HOPE,
    HOPED_SLOPE,
    MAX_HOPE,
    MAX_SURPRISE,
    SMALLEST_DEPTH,
    UNKNOWN,
    CostModel,
    RoundTimes,
)
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER


def twice(times: RoundTimes, source: str, length: int, seconds: float, sequences: int = 1) -> None:
    for _ in range(2):
        times.add(source, length, seconds, sequences)


def test_before_anything_was_timed_all_is_as_good() -> None:
    times = RoundTimes()
    sources = (ALONE, LOOKUP_DRAFTER, MODEL_DRAFTER, REVIEW)
    assert {times.seconds(source, length) for source in sources for length in range(9)} == {UNKNOWN}
    assert times.times(LOOKUP_DRAFTER, 1) == 0
    assert times.longest(LOOKUP_DRAFTER) == 0


def test_what_was_not_timed_lies_on_the_line_between_its_neighbours() -> None:
    times = RoundTimes()
    twice(times, ALONE, 0, 1.0)
    twice(times, LOOKUP_DRAFTER, 2, 2.0)
    twice(times, LOOKUP_DRAFTER, 4, 5.0)
    assert [times.seconds(LOOKUP_DRAFTER, length) for length in range(5)] == [1.0, 1.5, 2.0, 3.5, 5.0]
    assert times.longest(LOOKUP_DRAFTER) == 4
    assert times.seconds(MODEL_DRAFTER, 9) == 1.0, "the time of a token alone is all that is known of it"


def test_beyond_the_longest_draft_each_token_costs_what_the_last_ones_did_and_is_hoped_to_cost_little() -> (
    None
):
    times = RoundTimes()
    twice(times, ALONE, 0, 1.0)
    twice(times, LOOKUP_DRAFTER, 2, 2.0)
    twice(times, LOOKUP_DRAFTER, 4, 5.0)
    assert times.seconds(LOOKUP_DRAFTER, 8) == 5.0 + 4 * 1.5
    assert times.estimate(LOOKUP_DRAFTER, 8)[1] == pytest.approx(
        (1 - FIRST_HOPE) * (5.0 + HOPED_SLOPE * 4 * 1.5)
    )


def test_a_lookup_of_which_nothing_is_known_takes_no_longer_than_a_draft_model_for_as_many_tokens() -> None:
    times = RoundTimes()
    twice(times, MODEL_DRAFTER, 5, 0.02)  # as with a fixed length, where no token ever comes alone
    assert times.seconds(LOOKUP_DRAFTER, 5) == 0.02
    assert times.seconds(LOOKUP_DRAFTER, 5, sequences=2) == 0.02


def test_what_some_sequences_take_is_guessed_by_what_others_do() -> None:
    times = RoundTimes()
    twice(times, ALONE, 0, 1.0, 4)
    assert times.seconds(ALONE, 0, sequences=2) == 0.5
    assert times.seconds(ALONE, 0, sequences=8) == 1.0, "it is not known to cost more"
    twice(times, ALONE, 0, 0.7, 2)
    assert times.seconds(ALONE, 0, sequences=2) == 0.7


def test_reading_is_believed_the_first_time() -> None:
    times = RoundTimes()
    twice(times, ALONE, 0, 1.0)
    assert times.seconds(REVIEW, 9) == 1.0
    times.add(REVIEW, 9, 2.0)
    assert times.seconds(REVIEW, 9) == 2.0


def test_the_first_time_is_no_measure_as_there_may_have_been_something_to_compile() -> None:
    times = RoundTimes()
    twice(times, ALONE, 0, 1.0)
    times.add(LOOKUP_DRAFTER, 2, 50.0)
    assert times.estimate(LOOKUP_DRAFTER, 2)[1] == pytest.approx((1 - FIRST_HOPE) * 1.0)
    assert times.seconds(LOOKUP_DRAFTER, 4) == 1.0
    assert times.longest(LOOKUP_DRAFTER) == 0
    times.add(LOOKUP_DRAFTER, 2, 1.6)
    assert times.seconds(LOOKUP_DRAFTER, 2) == pytest.approx(1.6)
    times.add(LOOKUP_DRAFTER, 2, 2.0)
    assert times.seconds(LOOKUP_DRAFTER, 2) == pytest.approx(1.8)
    assert times.times(LOOKUP_DRAFTER, 2) == 3


def test_the_longer_ago_a_time_was_taken_the_shorter_it_is_hoped_to_be() -> None:
    times = RoundTimes()
    twice(times, LOOKUP_DRAFTER, 2, 1.0)
    assert times.estimate(LOOKUP_DRAFTER, 2)[1] == 1.0
    for rounds in (1, 101, 5000):
        while times._rounds < 2 + rounds:
            times.add(ALONE, 0, 2.0)
        assert times.estimate(LOOKUP_DRAFTER, 2)[1] == pytest.approx(1 - min(MAX_HOPE, rounds * HOPE))
    assert times.seconds(LOOKUP_DRAFTER, 2) == 1.0


def test_a_token_alone_is_hoped_to_take_less_too_and_sooner() -> None:
    times = RoundTimes()
    twice(times, ALONE, 0, 1.0)
    twice(times, MODEL_DRAFTER, 4, 2.0)
    assert times.estimate(ALONE, 0)[1] == pytest.approx(1 / (1 + 2 * ALONE_HOPE))
    for _ in range(198):
        times.add(MODEL_DRAFTER, 4, 2.0)
    times.add(ALONE, 0, 0.5)
    assert times.seconds(ALONE, 0) == pytest.approx(0.5, abs=0.05), (
        "what is as old as that is hardly believed"
    )


@pytest.mark.parametrize("odd", [1000.0, 0.5])
def test_one_round_that_took_something_else_counts_for_little(odd: float) -> None:
    times = RoundTimes()
    for _ in range(50):
        times.add(LOOKUP_DRAFTER, 1, 1.0)
    times.add(LOOKUP_DRAFTER, 1, odd)
    assert times.seconds(LOOKUP_DRAFTER, 1) == pytest.approx(1.0, abs=0.03)


def test_what_keeps_coming_is_believed_in_the_end() -> None:
    times = RoundTimes()
    for _ in range(50):
        times.add(LOOKUP_DRAFTER, 1, 1.0)
    for _ in range(300):
        times.add(LOOKUP_DRAFTER, 1, MAX_SURPRISE**4)
    assert times.seconds(LOOKUP_DRAFTER, 1) == pytest.approx(MAX_SURPRISE**4, rel=0.02)


# --- by depth -----------------------------------------------------------------------------------------------


def test_depths_have_a_table_for_each_doubling() -> None:
    costs = CostModel()
    tables = [costs.at(depth) for depth in (1, SMALLEST_DEPTH - 1, SMALLEST_DEPTH, 2 * SMALLEST_DEPTH - 1)]
    assert tables[0] is tables[1] is not tables[2] is tables[3]
    assert costs.at(4 * SMALLEST_DEPTH) is not costs.at(2 * SMALLEST_DEPTH)
    assert costs.at(1) is tables[0]


def test_a_new_table_begins_with_what_the_nearest_one_knows() -> None:
    costs = CostModel()
    costs.at(1).add(ALONE, 0, 1.0)
    costs.at(16 * SMALLEST_DEPTH).add(ALONE, 0, 9.0)
    assert costs.at(3 * SMALLEST_DEPTH).seconds(ALONE, 0) == 1.0
    near = costs.at(64 * SMALLEST_DEPTH)
    assert near.seconds(ALONE, 0) == pytest.approx(costs.at(16 * SMALLEST_DEPTH).seconds(ALONE, 0))
    near.add(ALONE, 0, 50.0)
    assert costs.at(16 * SMALLEST_DEPTH).seconds(ALONE, 0) != near.seconds(ALONE, 0), "each learns for itself"
    assert costs.at(1).seconds(ALONE, 0) == 1.0


def test_what_is_known_of_another_depth_gives_way_soon_to_what_is_timed_at_this_one() -> None:
    costs = CostModel()
    for _ in range(50):
        costs.at(1).add(ALONE, 0, 1.0)
    deep = costs.at(16 * SMALLEST_DEPTH)
    deep.add(ALONE, 0, 1.4)
    assert deep.seconds(ALONE, 0) == pytest.approx(1.2)
