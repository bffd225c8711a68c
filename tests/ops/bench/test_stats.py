"""Figures of a bench: medians, quartiles, speedups pair by pair, and the sentences, all by table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from draftd.ops.bench.stats import Sample, Spread, acceptance, cells, ratios, spread, standings, verdict

NONE, FAST, MAX = "no drafting", "3 (fast)", "7 (max)"
VARIANTS = (NONE, FAST, MAX)


def samples(
    speeds: Mapping[str, Sequence[float]], kind: str = "code", temperature: float = 0.0
) -> list[Sample]:
    """100 tokens each, at these speeds, run by run; half of what is drafted is accepted."""
    return [
        Sample(variant, kind, temperature, run, 100, 100 / speed, 0.1 * (run + 1), *_drafted(variant))
        for variant, list_ in speeds.items()
        for run, speed in enumerate(list_)
    ]


def _drafted(variant: str) -> tuple[int | None, int | None]:
    return (None, None) if variant == NONE else (80, 40)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0], Spread(5, 5, 5)),
        ([1.0, 3.0], Spread(2, 1.5, 2.5)),
        ([3.0, 1.0, 2.0], Spread(2, 1.5, 2.5)),
        ([1.0, 2.0, 3.0, 4.0, 100.0], Spread(3, 2, 4)),  # one that went astray moves nothing
    ],
)
def test_median_and_quartiles(values: list[float], expected: Spread) -> None:
    assert spread(values) == expected


def test_a_speed_up_compares_run_with_run_so_that_drift_cancels() -> None:
    slowing = samples({NONE: [100, 50, 25], FAST: [150, 75, 37.5]})
    assert ratios(slowing, FAST, NONE) == pytest.approx([1.5, 1.5, 1.5])
    found = {cell.variant: cell for cell in cells(slowing, VARIANTS)}
    speed_up = found[FAST].speed_up
    assert speed_up is not None
    assert (speed_up.low, speed_up.median, speed_up.high) == pytest.approx((1.5, 1.5, 1.5))
    assert found[FAST].speed.median == pytest.approx(75)
    assert found[NONE].speed_up is None


def test_a_run_without_its_counterpart_is_not_compared() -> None:
    lone = samples({NONE: [100], FAST: [150, 9000]})
    assert ratios(lone, FAST, NONE) == pytest.approx([1.5])
    assert ratios(samples({FAST: [150]}), FAST, NONE) == []
    assert standings(samples({FAST: [150]}), VARIANTS) == []


def test_cells_keep_kinds_and_temperatures_apart_in_order() -> None:
    measured = [
        *samples({NONE: [100], FAST: [200]}, "prose", 0.7),
        *samples({NONE: [100], FAST: [50]}, "code", 0.0),
        *samples({NONE: [100], FAST: [300]}, "prose", 0.0),
    ]
    found = [(c.kind, c.temperature, c.variant, c.speed.median, c.runs) for c in cells(measured, VARIANTS)]
    assert found == [
        ("prose", 0.0, NONE, 100, 1),
        ("prose", 0.0, FAST, 300, 1),
        ("prose", 0.7, NONE, 100, 1),
        ("prose", 0.7, FAST, 200, 1),
        ("code", 0.0, NONE, 100, 1),
        ("code", 0.0, FAST, 50, 1),
    ]


def test_acceptance_weighs_by_tokens_and_is_none_where_nothing_was_drafted() -> None:
    counted = [Sample(FAST, "code", 0, n, 10, 1, 0.1, p, a) for n, (p, a) in enumerate([(10, 10), (90, 10)])]
    assert acceptance(counted) == 0.2
    assert acceptance(samples({NONE: [1, 2]})) is None
    assert acceptance([Sample(FAST, "code", 0, 0, 10, 1, 0.1)]) is None


def test_over_several_cells_twice_as_fast_and_half_as_fast_are_no_gain() -> None:
    mixed = samples({NONE: [100], FAST: [200]}) + samples({NONE: [100], FAST: [50]}, "chat")
    (only,) = standings(mixed, VARIANTS)
    assert only.speed_up == pytest.approx(1)
    assert not only.faster
    assert not only.slower


@pytest.mark.parametrize(
    ("speeds", "sentence"),
    [
        (
            {NONE: [100] * 3, FAST: [150] * 3, MAX: [180] * 3},
            "7 (max) is best: 1.80x the speed of no drafting, 50% accepted.",
        ),
        (
            {NONE: [100] * 3, FAST: [150] * 3, MAX: [80] * 3},
            "3 (fast) is best: 1.50x the speed of no drafting, 50% accepted. "
            "Slower than no drafting: 7 (max) (0.80x).",
        ),
        (
            {NONE: [100] * 3, FAST: [90] * 3, MAX: [60] * 3},
            "drafting makes it slower here: the best, 3 (fast), reaches 0.90x the speed of no drafting, "
            "50% accepted. Serve this model without a draft model.",
        ),
        (
            {NONE: [100] * 3, FAST: [103] * 3, MAX: [97] * 3},  # too little to matter
            "drafting makes no clear difference here: the best, 3 (fast), reaches 1.03x the speed of no "
            "drafting, 50% accepted, within 1.03 to 1.03.",
        ),
        (
            {NONE: [100] * 4, FAST: [60, 80, 150, 166], MAX: [50] * 4},  # too uncertain
            "too uncertain to tell: the best, 3 (fast), reaches 1.15x the speed of no drafting, 50% accepted, "
            "within 0.75 to 1.54. Repeat with more runs, and with less else running.",
        ),
    ],
)
def test_the_verdict_says_what_to_do_and_says_so_when_drafting_is_slower(
    speeds: dict[str, list[float]], sentence: str
) -> None:
    assert verdict(samples(speeds), VARIANTS) == [f"code: {sentence}", f"overall: {sentence}"]


def test_slower_in_the_median_but_not_in_three_of_four_is_not_called_slower() -> None:
    (only,) = standings(samples({NONE: [100] * 4, FAST: [70, 80, 90, 140]}), (NONE, FAST))
    assert only.speed_up < 0.9
    assert only.high > 1
    assert not only.slower


def test_the_best_overall_is_told_to_be_slower_where_it_is() -> None:
    mixed = [
        *samples({NONE: [100] * 3, FAST: [250] * 3}, "code"),
        *samples({NONE: [100] * 3, FAST: [200] * 3}, "prose"),
        *samples({NONE: [100] * 3, FAST: [260] * 3}, "more"),
        *samples({NONE: [100] * 3, FAST: [210] * 3}, "and more"),
        *samples({NONE: [100] * 3, FAST: [80] * 3}, "chat"),
    ]
    said = verdict(mixed, VARIANTS)
    assert said[-3].startswith("chat: drafting makes it slower here")
    assert said[-2].startswith("overall: 3 (fast) is best: 1.85x")
    assert said[-1] == "But 3 (fast) is slower than no drafting on chat."
