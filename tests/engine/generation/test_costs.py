"""What drafting costs: the estimate by hand, the measurement on the demo pair, and one that fails."""

from collections.abc import Generator
from typing import Any

import pytest

from draftd.engine.generation.acceptance import AcceptanceCount
from draftd.engine.generation.costs import Meter, speedup
from draftd.protocol import Costs
from tests.engine.served import Engine, turn

COSTS = Costs(single=10.0, draft=1.0, verify=15.0)


def counted(draft_length: int, max_tokens: int, from_draft: list[bool]) -> AcceptanceCount:
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


def test_without_a_draft_there_is_no_estimate() -> None:
    assert speedup(COSTS, counted(0, 9, [False])) is None


def test_a_failed_measurement_is_told_once_and_disturbs_nothing() -> None:
    def steps(*_: Any, **__: Any) -> Generator[tuple[Any, Any, bool], None, None]:
        yield 1, None, False

    told: list[Exception] = []
    meter = Meter(told.append)
    for _ in range(2):
        tokens = list(meter.metered(steps)("prompt", None, None, None, num_draft_tokens=2))
        assert tokens == [(1, None, False)]
    assert len(told) == 1
    assert meter.figures(counted(2, 9, [False])) == {}


@pytest.mark.real
def test_a_drafted_request_tells_what_drafting_costs_and_is_worth(drafted: Engine) -> None:
    drafted.generation(lambda: drafted.complete(turn("Hello!"), max_tokens=12, num_draft_tokens=6))
    record = drafted.records("generation")[-1]
    costs = Costs(**record["costs"])
    assert 0 < costs.draft < costs.verify, "one row of the small model is cheaper than seven of the large one"
    assert costs.single < costs.verify
    seconds = record["proposed"] * costs.draft + record["rounds"] * costs.verify
    assert record["speedup"] == pytest.approx(record["tokens"] * costs.single / seconds)
    drafted.generation(lambda: drafted.complete(turn("Hello!"), max_tokens=4, num_draft_tokens=6))
    assert drafted.records("generation")[-1]["costs"] == record["costs"], "measured once for each length"
