"""The life of a peer: left out at once, asked again later and later, back with its first answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.peers.condition import (
    FIRST_DELAY,
    FORGIVEN_AFTER,
    JITTER,
    LASTING_DELAY,
    MAX_DELAY,
    Answered,
    Condition,
    Event,
    Failed,
    New,
    Out,
    Well,
    step,
)

EVENTS: st.SearchStrategy[Event] = st.sampled_from([Answered(), Failed("gone"), Failed("key", lasting=True)])
STEPS = st.lists(st.tuples(EVENTS, st.floats(0, 100), st.floats(0, 0.999)), max_size=30)


def run(steps: list[tuple[Event, float, float]]) -> list[tuple[Condition, Event, float, Condition]]:
    """Every step: before, the event, its time, after."""
    state: Condition = New()
    now, made = 0.0, []
    for event, passed, jitter in steps:
        now += passed
        after = step(state, event, now, jitter)
        made.append((state, event, now, after))
        state = after
    return made


@given(STEPS)
def test_any_answer_brings_it_back_and_any_failure_leaves_it_out(
    steps: list[tuple[Event, float, float]],
) -> None:
    for before, event, now, after in run(steps):
        if isinstance(event, Answered):
            assert isinstance(after, Well)
            assert after.since <= now
        else:
            assert isinstance(after, Out)
            assert (after.reason, after.due >= now + FIRST_DELAY) == (event.reason, True)
            longest = LASTING_DELAY if event.lasting else MAX_DELAY
            assert after.due <= now + longest * (1 + JITTER)
            if isinstance(before, Out):
                assert (after.since, after.failures) == (before.since, before.failures + 1)
            if event.lasting:
                assert after.due >= now + LASTING_DELAY


def test_the_delay_doubles_up_to_its_bound() -> None:
    state: Condition = New()
    delays = []
    for _ in range(7):
        state = step(state, Failed("gone"), 100.0, 0.0)
        assert isinstance(state, Out)
        delays.append(state.due - 100)
    assert delays == [0.5, 1, 2, 4, 8, 10, 10]


@pytest.mark.parametrize(("well", "delay"), [(1.0, 2.0), (FORGIVEN_AFTER - 1, 2.0), (FORGIVEN_AFTER, 0.5)])
def test_failures_are_forgotten_only_after_a_minute_of_being_well(well: float, delay: float) -> None:
    """One that comes and goes is asked less and less often."""
    state: Condition = New()
    for event in (Failed("gone"), Failed("gone"), Answered()):
        state = step(state, event, 0.0, 0.0)
    state = step(state, Failed("gone"), well, 0.0)
    assert isinstance(state, Out)
    assert state.due - well == delay


def test_answers_of_one_that_is_well_change_nothing_but_what_is_forgotten() -> None:
    well = Well(10.0, failures=3)
    assert step(well, Answered(), 20.0, 0.0) is well
    assert step(well, Answered(), 10.0 + FORGIVEN_AFTER, 0.0) == Well(10.0)
