"""What passes cost: which of the times count, and the measurement on the demo pair."""

from pathlib import Path
from typing import Any

import mlx_lm
import pytest

from draftd.engine.generation import calibration as module
from draftd.engine.generation.calibration import Calibration, measure
from draftd.engine.generation.estimates import CostModel
from draftd.engine.generation.sampling import Distribution, Greedy

NO_LOOKS: list[float] = []


def timings(monkeypatch: pytest.MonkeyPatch, *passes: tuple[float, float, list[float], list[float]]) -> None:
    """Let the passes take these times."""
    left = iter(passes)
    monkeypatch.setattr(module, "_time_all", lambda *_: module._Timings(*next(left)))


def test_the_least_disturbed_time_counts_and_the_first_pass_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [
        (8.0 * factor, 4.0 * factor, [factor * (5 + n) for n in range(3)], [factor, 0.0, 9.0])
        for factor in (0.1, 3.0, 1.0, 2.0)
    ]
    timings(monkeypatch, *every)
    kind = Calibration(Greedy(), (0, 1, 2), (0, 1, 2), passes=4)
    assert measure(kind, None, None) == CostModel(2.0, 1.0, (5.0, 5.0, 5.0), look=2.0)


def test_a_disturbed_measurement_makes_no_cost_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    disturbed = (8.0, 40.0, [3.0, 3.0, 3.0], [-1.0])  # draft tokens of 10 s in rounds of 3
    timings(monkeypatch, disturbed, disturbed)
    kind = Calibration(Greedy(), (0, 1, 2), (2,), passes=2)
    assert measure(kind, None, None) == CostModel(2.0, 10.0, (10.0, 10.0, 10.0), look=0.0)


def test_for_one_length_the_others_lie_between_it_and_a_token_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calibration = Calibration.fixed(4)
    timings(monkeypatch, *[(8.0, 4.0, [10.0], NO_LOOKS)] * calibration.passes)
    assert measure(calibration, None, None) == CostModel(2.0, 1.0, (2.0, 3.0, 4.0, 5.0, 6.0))


@pytest.mark.parametrize(
    ("most", "lengths"), [(1, (0, 1)), (5, (0, 1, 2, 3, 4, 5)), (9, (0, 1, 2, 3, 4, 6, 8, 9))]
)
def test_an_adaptive_length_needs_the_costs_of_all_up_to_the_longest(
    most: int, lengths: tuple[int, ...]
) -> None:
    kind = Calibration.adaptive(Greedy(), most)
    assert kind.lengths == lengths
    assert kind.looked == tuple(n for n in lengths if n in {2, 4, most})


@pytest.mark.real
@pytest.mark.parametrize("distribution", [Greedy(), Distribution(0.7)])
def test_costs_of_the_demo_pair(pair: tuple[Path, Path], distribution: Any) -> None:
    (target, _), (draft, _) = (mlx_lm.load(str(folder)) for folder in pair)
    costs = measure(Calibration.adaptive(distribution, 6), target, draft)
    assert costs.max_length == 6
    assert 0 < costs.draft < costs.single < costs.verify[6], "the draft model is the small one"
    assert costs.look < costs.verify[6], "a look is a wait, and no pass"
