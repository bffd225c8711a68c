"""What is learnt from rounds: shares that are kept, and seconds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.engine.generation.estimates import (
    ALONE,
    MAX_SURPRISE,
    PRIOR_WEIGHT,
    SMALLEST_DEPTH,
    STALE,
    UNKNOWN,
    AcceptanceEstimate,
    CostModel,
    RoundTimes,
    Share,
    place_of,
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
    share = Share(0.8)
    assert share.value == pytest.approx(0.8)
    share.add(0)
    assert 0.5 < share.value < 0.8
    for _ in range(300):
        share.add(0.25)
    assert share.value == pytest.approx(0.25, abs=0.001)


def test_what_was_seen_lately_counts_more() -> None:
    early, late = Share(0.5), Share(0.5)
    for n in range(100):
        early.add(n < 50)
        late.add(n >= 50)
    assert early.value < 0.3
    assert late.value > 0.7


@given(st.floats(0, 1), st.lists(st.floats(0, 1), max_size=50))
def test_a_share_lies_between_all_that_it_was_told(guess: float, seen: list[float]) -> None:
    share = Share(guess)
    for hit in seen:
        share.add(hit)
    assert min([guess, *seen]) - 1e-9 <= share.value <= max([guess, *seen]) + 1e-9


def test_another_text_keeps_the_value_and_lets_it_change_sooner() -> None:
    settled, fresh = Share(0.5), Share(0.5)
    for share in (settled, fresh):
        for _ in range(100):
            share.add(1)
    fresh.another_text()
    assert fresh.value == pytest.approx(settled.value)
    settled.add(0)
    fresh.add(0)
    assert fresh.value < settled.value
    assert fresh.value == pytest.approx(PRIOR_WEIGHT / (PRIOR_WEIGHT + 1), abs=0.02)
    new = Share(0.5)
    new.another_text()
    new.add(0)
    assert new.value == pytest.approx(0.4, abs=0.01), "what is no more than a guess stays one"


def test_places_beyond_the_first_are_shared_by_ever_more_positions() -> None:
    places = [place_of(position) for position in range(64)]
    assert places[:8] == list(range(8))
    assert places[8:] == [8] * 8 + [9] * 16 + [10] * 32


def test_positions_and_sources_are_known_apart() -> None:
    known = estimate()
    for _ in range(200):
        known.judged("good", 3, 1)
    assert shares(known, "good", 2) == pytest.approx([1.0, 0.0], abs=0.01)
    assert shares(known, "bad", 2) == pytest.approx([0.2, 0.2])


def test_what_comes_after_the_first_refused_token_was_not_judged() -> None:
    known = estimate()
    list(known.chances("good", 5))
    for _ in range(200):
        known.judged("good", 5, 2)
    assert shares(known, "good", 3) == pytest.approx([1.0, 1.0, 0.0], abs=0.01)
    assert [share.value for share in known._shares["good"][3:]] == pytest.approx([0.8, 0.8])


def test_a_draft_that_was_kept_as_a_whole_was_judged_as_a_whole() -> None:
    known = estimate()
    for _ in range(200):
        known.judged("bad", 2, 2)
    assert shares(known, "bad", 2) == pytest.approx([1.0, 1.0], abs=0.01)


def test_a_position_that_was_never_tried_is_taken_to_be_as_the_one_before_it() -> None:
    known = estimate()
    for _ in range(200):
        known.judged("bad", 1, 1)
    assert shares(known, "bad", 4)[-1] == pytest.approx(1.0, abs=0.01)


def test_a_token_without_a_draft_teaches_all_positions() -> None:
    known = estimate()
    list(known.chances("good", 4))
    for _ in range(200):
        known.would_have_kept("good", 0.1)
    assert shares(known, "good", 4) == pytest.approx([0.1] * 4, abs=0.01)
    unheard = estimate()
    unheard.would_have_kept("good", 0.0)
    assert shares(unheard, "good", 1)[0] < 0.8


def test_all_shares_are_told_of_another_text() -> None:
    known, other = estimate(), estimate()
    for one in (known, other):
        for source in GUESSES:
            for _ in range(100):
                one.judged(source, 2, 2)
    known.another_text()
    for one in (known, other):
        for source in GUESSES:
            one.judged(source, 2, 1)
    for source in GUESSES:
        assert shares(known, source, 2)[1] < shares(other, source, 2)[1]


def test_acceptance_is_learnt_from_noise() -> None:
    rng = random.Random(1)
    known = estimate()
    for _ in range(2000):
        kept = next((n for n, right in enumerate((0.9, 0.6, 0.3)) if rng.random() >= right), 3)
        known.judged("good", 3, kept)
    assert shares(known, "good", 3) == pytest.approx([0.9, 0.6, 0.3], abs=0.2)


# --- how long rounds take -----------------------------------------------------------------------------------


def test_before_anything_was_timed_all_is_as_good() -> None:
    times = RoundTimes()
    assert {times.seconds("a", length) for length in range(9)} == {UNKNOWN}
    assert times.times("a", 1) == 0


def test_what_was_not_timed_is_hoped_to_be_as_quick_as_the_next_shorter_or_as_a_token_alone() -> None:
    times = RoundTimes()
    times.add("a", 4, 3.0)
    assert times.seconds("b", 9) == 3.0, "the quickest of all, while nothing came alone"
    times.add(ALONE, 0, 1.0)
    times.add("a", 2, 2.0)
    hoped = [times.seconds("a", length) for length in range(1, 7)]
    assert hoped == [1.0, 2.0, 2.0, 3.0, 3.0, 3.0]
    times.add("c", 1, 0.5)
    assert times.seconds("b", 9) == 1.0
    assert times.seconds(ALONE, 0) == 1.0


def test_the_first_time_is_believed_and_the_next_ones_are_averaged() -> None:
    times = RoundTimes()
    times.add("a", 1, 1.0)
    assert times.seconds("a", 1) == 1.0
    times.add("a", 1, 1.2)
    assert times.seconds("a", 1) == pytest.approx(1.1)
    times.add("a", 1, 1.1)
    assert times.seconds("a", 1) == pytest.approx(1.1)
    assert times.times("a", 1) == 3


@pytest.mark.parametrize("odd", [1000.0, 0.0001])
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


def test_what_was_timed_long_ago_gives_way_sooner() -> None:
    def after(others: int) -> float:
        times = RoundTimes()
        for _ in range(50):
            times.add("a", 1, 1.0)
        for _ in range(others):
            times.add("b", 1, 1.0)
        times.add("a", 1, 1.4)
        return times.seconds("a", 1)

    assert after(0) == pytest.approx(1.02, abs=0.001)
    assert after(STALE // 2) == pytest.approx(1.1, abs=0.01)
    assert after(50 * STALE) == pytest.approx(1.2, abs=0.01)


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
