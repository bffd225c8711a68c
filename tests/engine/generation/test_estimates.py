"""What is learnt from rounds: shares that are kept, and seconds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.engine.generation.choices import ALONE, REVIEW
from draftd.engine.generation.estimates import (
    FIRST_HOPE,
    HOPE,
    MAX_HOPE,
    MAX_POSITIONS,
    MAX_SURPRISE,
    SMALLEST_DEPTH,
    UNKNOWN,
    AcceptanceEstimate,
    CostModel,
    RoundTimes,
)

GUESSES = {"good": 0.8, "bad": 0.2}


def estimate() -> AcceptanceEstimate:
    return AcceptanceEstimate(GUESSES.__getitem__)


def shares(known: AcceptanceEstimate, source: str, length: int) -> list[float]:
    """Return how likely each token is to be kept if those before it are."""
    chances = list(known.chances(source, length))
    return [chance / before for before, chance in zip([1.0, *chances], chances, strict=False)]


# --- how often draft tokens are kept ------------------------------------------------------------------------


def test_a_share_begins_as_the_guess_and_ends_as_what_was_seen() -> None:
    known = estimate()
    assert shares(known, "good", 3) == pytest.approx([0.8] * 3)
    known.judged("good", 1, 0)
    assert 0.5 < shares(known, "good", 1)[0] < 0.8
    for _ in range(300):
        known.judged("good", 1, 0.25)
    assert shares(known, "good", 1)[0] == pytest.approx(0.25, abs=0.001)


def test_what_was_seen_lately_counts_more() -> None:
    early, late = estimate(), estimate()
    for n in range(100):
        early.judged("good", 1, n < 50)
        late.judged("good", 1, n >= 50)
    assert shares(early, "good", 1)[0] < 0.3
    assert shares(late, "good", 1)[0] > 0.7


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), max_size=50))
def test_chances_fall_from_position_to_position_and_stay_between_none_and_all(
    drafts: list[tuple[int, int]],
) -> None:
    known = estimate()
    for length, kept in drafts:
        known.judged("good", length, min(length, kept))
    chances = [1.0, *known.chances("good", 64)]
    assert chances == sorted(chances, reverse=True)
    assert chances[-1] >= 0


def test_positions_and_sources_are_known_apart() -> None:
    known = estimate()
    for _ in range(200):
        known.judged("good", 3, 1)
    assert shares(known, "good", 2) == pytest.approx([1.0, 0.0], abs=0.1)
    assert shares(known, "bad", 2) == pytest.approx([0.2, 0.2])


def test_positions_far_back_share_what_is_known_of_them() -> None:
    known = estimate()
    for _ in range(200):
        known.judged("good", 40, MAX_POSITIONS + 3)
    far = shares(known, "good", 40)[MAX_POSITIONS - 1 :]
    assert far == pytest.approx([far[0]] * len(far))
    assert far[0] == pytest.approx(0.8, abs=0.1), "4 of 5 judged ones were kept"


def test_a_draft_that_was_kept_as_a_whole_was_judged_as_a_whole() -> None:
    known = estimate()
    for _ in range(200):
        known.judged("bad", 2, 2)
    assert shares(known, "bad", 2) == pytest.approx([1.0, 1.0], abs=0.01)


def test_what_comes_after_the_first_refused_token_was_not_judged() -> None:
    known = estimate()
    for _ in range(200):
        known.judged("good", 5, 2)
    first, second, third, fourth, _ = shares(known, "good", 5)
    assert [first, second] == pytest.approx([1.0, 1.0], abs=0.01)
    assert third == pytest.approx(fourth)
    assert third < 0.1


def test_a_position_that_was_not_tried_for_long_is_taken_to_be_as_the_one_before_it() -> None:
    known = estimate()
    for _ in range(200):
        known.judged("bad", 2, 1)
    assert shares(known, "bad", 2)[1] < 0.1
    for _ in range(400):
        known.judged("bad", 1, 1)
    assert shares(known, "bad", 4) == pytest.approx([1.0] * 4, abs=0.05)


def test_another_text_keeps_the_value_and_lets_it_change_sooner() -> None:
    settled, fresh = estimate(), estimate()
    for known in (settled, fresh):
        for _ in range(100):
            known.judged("good", 1, 1)
    fresh.another_text()
    assert shares(fresh, "good", 1) == pytest.approx(shares(settled, "good", 1))
    for known in (settled, fresh):
        known.judged("good", 1, 0)
    assert shares(fresh, "good", 1)[0] < shares(settled, "good", 1)[0] - 0.05


def test_acceptance_is_learnt_from_noise() -> None:
    rng = random.Random(1)
    known = estimate()
    for _ in range(2000):
        kept = next((n for n, right in enumerate((0.9, 0.6, 0.3)) if rng.random() >= right), 3)
        known.judged("good", 3, kept)
    assert shares(known, "good", 3) == pytest.approx([0.9, 0.6, 0.3], abs=0.2)


# --- how long rounds take -----------------------------------------------------------------------------------


def twice(times: RoundTimes, source: str, length: int, seconds: float) -> None:
    for _ in range(2):
        times.add(source, length, seconds)


def test_before_anything_was_timed_all_is_as_good() -> None:
    times = RoundTimes()
    assert {times.seconds("a", length) for length in range(9)} == {UNKNOWN}
    assert times.times("a", 1) == 0
    assert times.longest("a") == 0


def test_what_was_not_timed_lies_in_the_middle_of_what_its_neighbours_allow() -> None:
    times = RoundTimes()
    twice(times, ALONE, 0, 1.0)
    twice(times, "a", 2, 2.0)
    twice(times, "a", 4, 4.0)
    assert [times.seconds("a", length) for length in range(1, 7)] == [1.5, 2.0, 3.0, 4.0, 4.0, 4.0]
    assert times.seconds("b", 9) == 1.0, "as long as going on alone"
    assert times.longest("a") == 4


def test_a_round_takes_no_less_than_one_with_a_shorter_draft() -> None:
    times = RoundTimes()
    for length, seconds in ((1, 1.0), (2, 3.0), (3, 2.0), (4, 4.0)):
        twice(times, "a", length, seconds)
    assert [times.seconds("a", length) for length in range(1, 5)] == [1.0, 2.5, 2.5, 4.0]
    for _ in range(6):
        times.add("a", 3, 2.0)
    assert times.seconds("a", 2) == pytest.approx(2.2), "what was timed more often counts for more"


def test_reading_is_believed_the_first_time() -> None:
    times = RoundTimes()
    times.add(REVIEW, 9, 2.0)
    assert times.seconds(REVIEW, 9) == 2.0


def test_the_first_time_is_no_measure_as_there_may_have_been_something_to_compile() -> None:
    times = RoundTimes()
    twice(times, ALONE, 0, 1.0)
    times.add("a", 2, 50.0)
    assert times.hoped("a", 2) == pytest.approx((1 - FIRST_HOPE) * 1.0)
    assert times.seconds("a", 4) == 1.0
    times.add("a", 2, 1.6)
    assert times.seconds("a", 2) == pytest.approx(1.6)
    times.add("a", 2, 2.0)
    assert times.seconds("a", 2) == pytest.approx(1.8)
    assert times.times("a", 2) == 3


def test_the_longer_ago_a_time_was_taken_the_shorter_it_is_hoped_to_be() -> None:
    times = RoundTimes()
    twice(times, "a", 2, 1.0)
    assert times.hoped("a", 2) == 1.0
    for rounds in (1, 100):
        for _ in range(rounds):
            times.add(ALONE, 0, 2.0)
    assert times.hoped("a", 2) == pytest.approx(1 - 101 * HOPE)
    for _ in range(5000):
        times.add(ALONE, 0, 2.0)
    assert times.hoped("a", 2) == pytest.approx(1 - MAX_HOPE)
    assert times.seconds("a", 2) == 1.0


@pytest.mark.parametrize("odd", [1000.0, 0.5])
def test_one_round_that_took_something_else_counts_for_little(odd: float) -> None:
    times = RoundTimes()
    for _ in range(50):
        times.add("a", 1, 1.0)
    times.add("a", 1, odd)
    assert times.seconds("a", 1) == pytest.approx(1.0, abs=0.03)


def test_what_keeps_coming_is_believed_in_the_end() -> None:
    times = RoundTimes()
    for _ in range(50):
        times.add("a", 1, 1.0)
    for _ in range(300):
        times.add("a", 1, MAX_SURPRISE**4)
    assert times.seconds("a", 1) == pytest.approx(MAX_SURPRISE**4, rel=0.02)


# --- by depth -----------------------------------------------------------------------------------------------


def test_depths_have_a_table_for_each_doubling() -> None:
    costs = CostModel()
    tables = [costs.at(depth) for depth in (1, SMALLEST_DEPTH - 1, SMALLEST_DEPTH, 2 * SMALLEST_DEPTH - 1)]
    assert tables[0] is tables[1] is not tables[2] is tables[3]
    assert costs.at(4 * SMALLEST_DEPTH) is not costs.at(2 * SMALLEST_DEPTH)
    assert costs.at(1) is tables[0]


def test_a_new_table_begins_with_what_the_nearest_one_knows() -> None:
    costs = CostModel()
    costs.at(1).add("a", 1, 1.0)
    costs.at(16 * SMALLEST_DEPTH).add("a", 1, 9.0)
    assert costs.at(3 * SMALLEST_DEPTH).seconds("a", 1) == 1.0
    near = costs.at(64 * SMALLEST_DEPTH)
    assert near.seconds("a", 1) == pytest.approx(costs.at(16 * SMALLEST_DEPTH).seconds("a", 1))
    near.add("a", 1, 50.0)
    assert costs.at(16 * SMALLEST_DEPTH).seconds("a", 1) != near.seconds("a", 1), "each learns for itself"
    assert costs.at(1).seconds("a", 1) == 1.0


def test_what_is_known_of_another_depth_gives_way_soon_to_what_is_timed_at_this_one() -> None:
    costs = CostModel()
    for _ in range(50):
        costs.at(1).add("a", 1, 1.0)
    deep = costs.at(16 * SMALLEST_DEPTH)
    deep.add("a", 1, 1.4)
    assert deep.seconds("a", 1) == pytest.approx(1.2)
