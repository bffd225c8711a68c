"""What is learnt from rounds of how often draft tokens are kept."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.engine.generation.estimates import MAX_POSITIONS, AcceptanceEstimate

GUESSES = {"good": 0.8, "bad": 0.2}


def estimate() -> AcceptanceEstimate:
    return AcceptanceEstimate(GUESSES.__getitem__)


def shares(known: AcceptanceEstimate, source: str, length: int) -> list[float]:
    """Return how likely each token is to be kept if those before it are."""
    chances = list(known.chances(source, length))
    return [chance / before for before, chance in zip([1.0, *chances], chances, strict=False)]


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
