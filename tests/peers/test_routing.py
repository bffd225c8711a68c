"""Where a request goes: the rules at the top of `routing`, held for any places."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.peers.routing import ABOUT_EQUAL, Demand, Place, crowding, estimate, order

speeds = st.none() | st.floats(1, 5000)


@st.composite
def places(draw: st.DrawFn) -> list[Place]:
    count = draw(st.integers(1, 6))
    return [
        Place(
            name=f"m{number}",
            weight=draw(st.floats(0.1, 10)),
            open=draw(st.integers(0, 40)),
            slots=draw(st.integers(1, 8)),
            start=draw(st.sampled_from([0.0, 0.0, 20.0])),
            warm=draw(st.integers(0, 5000)),
            given=draw(st.integers(0, 100)),
            reads=draw(speeds),
            writes=draw(speeds),
            takes=draw(st.none() | st.floats(0.01, 600)),
        )
        for number in range(count)
    ]


demands = st.builds(Demand, st.floats(0, 50_000), st.floats(1, 4000))


def machine(name: str, **figures: Any) -> Place:
    return Place(name=name, **{"reads": 500.0, "writes": 30.0, "takes": 10.0, **figures})


@given(places(), demands)
def test_every_place_is_named_once_and_none_that_is_much_slower_than_another_comes_first(
    given: list[Place], demand: Demand
) -> None:
    ordered = order(given, demand)
    assert sorted(one.name for one in ordered) == sorted(one.name for one in given)
    rest = list(given)
    for place in ordered:
        fastest = min(estimate(one, given, demand) for one in rest)
        assert estimate(place, given, demand) <= fastest * ABOUT_EQUAL
        rest.remove(place)


@given(places(), demands, st.randoms())
def test_the_order_in_which_places_are_given_does_not_matter(
    given: list[Place], demand: Demand, random: Random
) -> None:
    shuffled = random.sample(given, len(given))
    assert order(shuffled, demand)[0] == order(given, demand)[0]


@given(places(), demands)
def test_a_queue_that_grows_or_a_prefix_that_shrinks_makes_no_place_better(
    given: list[Place], demand: Demand
) -> None:
    for place in given:
        others = [one for one in given if one is not place]
        for worse in (replace(place, open=place.open + 1), replace(place, warm=place.warm / 2)):
            before, after = estimate(place, given, demand), estimate(worse, [*others, worse], demand)
            assert after >= before * (1 - 1e-9)


@given(
    st.floats(0, 20_000), st.floats(0, 20_000), st.integers(0, 20), st.floats(0.1, 100), st.floats(50, 5000)
)
def test_the_longest_common_prefix_wins_unless_its_queue_is_longer_than_reading_it_again(
    prompt: float, warm: float, queue: int, takes: float, reads: float
) -> None:
    """Between two machines of one speed, of which one has the prefix and the queue, the other neither."""
    warm = min(prompt, warm)
    one = machine("one", warm=warm, open=queue, takes=takes, reads=reads)
    other = machine("other", takes=takes, reads=reads)
    first = order([other, one], Demand(prompt, 100))[0].name
    waits, reads_again = queue * takes, warm / reads
    whole = prompt / reads + 100 / 30  # what `other` takes: estimates within a tenth of it count as equal
    if waits < reads_again - 1e-6:
        assert first == "one"
    elif waits > reads_again + (ABOUT_EQUAL - 1) * whole + 1e-6:
        assert first == "other"


@given(st.lists(st.integers(1, 60), min_size=2, max_size=6))
def test_machines_that_are_alike_take_turns_by_their_weight(counts: list[int]) -> None:
    given = {f"m{n}": 0 for n in range(len(counts))}
    for _ in range(len(counts) * 10):
        now = [machine(name, given=times) for name, times in given.items()]
        given[order(now, Demand(1000, 100))[0].name] += 1
    assert set(given.values()) == {10}


def test_a_machine_twice_as_fast_gets_the_request_although_it_is_busier() -> None:
    slow, fast = machine("slow", reads=250, writes=15), machine("fast", open=1, slots=4)
    assert order([slow, fast], Demand(2000, 200))[0].name == "fast"


def test_a_model_that_sleeps_is_woken_only_where_waiting_takes_longer() -> None:
    asleep = machine("asleep", start=20)
    assert order([asleep, machine("busy", open=1)], Demand(1000, 100))[0].name == "busy"
    assert order([asleep, machine("busy", open=4)], Demand(1000, 100))[0].name == "asleep"


def test_a_weight_of_two_may_take_twice_as_long() -> None:
    for weight, expected in ((1.5, "light"), (2.5, "heavy")):
        heavy, light = machine("heavy", weight=weight, writes=15, reads=250), machine("light")
        assert order([heavy, light], Demand(2000, 200))[0].name == expected


def test_who_is_unknown_is_taken_for_the_median_of_the_others() -> None:
    demand = Demand(1000, 100)
    known = [machine("a", reads=100), machine("b", reads=200), machine("c", reads=900)]
    unknown = Place(name="new", writes=30.0, takes=10.0)
    assert estimate(unknown, [*known, unknown], demand) == pytest.approx(
        estimate(known[1], [*known, unknown], demand)
    )


@pytest.mark.parametrize(
    ("at_work", "slots", "times"), [(0, 4, 1), (1, 4, 1.5), (3, 4, 2.5), (9, 4, 2.5), (9, 1, 1)]
)
def test_a_machine_does_several_requests_more_slowly_each(at_work: int, slots: int, times: float) -> None:
    assert crowding(at_work, slots) == times
