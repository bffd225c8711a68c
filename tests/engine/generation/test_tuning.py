"""Which requests are tuned, and what their prices are: with a loop that stands for ours, and on the demo pair."""

import functools
from collections.abc import Generator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest

from draftd.engine.generation import calibration as timing
from draftd.engine.generation import tuning
from draftd.engine.generation.calibration import interpolated, measure
from draftd.engine.generation.cost_model import CostModel
from draftd.engine.generation.policy import AdaptiveLength, DraftPolicy, FixedLength
from draftd.engine.generation.rules import ATTRIBUTE
from draftd.engine.generation.sampling import Distribution, Greedy
from draftd.engine.generation.tuning import FIRST_LENGTH, MAX_KINDS, PASSES, Tuning
from tests.engine.served import Engine, turn

PLACE = ("prompt", "target", "draft", None)
PRICES = CostModel(2.0, 1.0, (1.0, 2.0))


class Sampler:
    def __init__(self, distribution: object) -> None:
        setattr(self, ATTRIBUTE, distribution)


class Loop:
    """Stands for our loop, and notes with which policy or length it was called."""

    def __init__(self) -> None:
        self.policies: list[DraftPolicy | None] = []
        self.lengths: list[int] = []

    def __call__(
        self, *_: Any, policy: DraftPolicy | None = None, **kwargs: Any
    ) -> Generator[Any, None, None]:
        self.policies.append(policy)
        self.lengths.append(kwargs["num_draft_tokens"])
        yield 1, None, False

    __name__ = "loop"


def ask(tuned: Any, distribution: object = Greedy(), length: int = 8, **others: Any) -> None:
    steps = tuned(*PLACE, num_draft_tokens=length, max_tokens=9, sampler=Sampler(distribution), **others)
    assert list(steps) == [(1, None, False)]


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Let a measurement cost nothing, and note what was measured."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(mx, "stream", nullcontext)

    def measured(*args: Any) -> CostModel:
        asked.append(args)
        return PRICES

    monkeypatch.setattr(tuning, "measure", measured)
    return asked


def unexpected(error: Exception) -> None:
    raise AssertionError from error


def test_a_request_that_is_not_to_be_tuned_is_left_as_it_is(loop: Loop) -> None:
    ask(Tuning(lambda: False, unexpected).tuned(loop))
    assert (loop.policies, loop.lengths) == ([None], [8])


def test_where_mlx_lms_own_loop_drafts_the_length_is_fixed(loop: Loop) -> None:
    tuned = Tuning(lambda: True, unexpected).tuned(loop)
    ask(tuned, logits_processors=[print])
    ask(tuned, length=2, logits_processors=[print])
    assert (loop.policies, loop.lengths) == ([None, None], [FIRST_LENGTH, 2])


def test_the_first_request_of_a_kind_is_fixed_and_pays_for_the_prices(
    loop: Loop, priced: list[tuple[Any, ...]]
) -> None:
    tuned = Tuning(lambda: True, unexpected).tuned(loop)
    for distribution in (Greedy(), Greedy(), Distribution(0.7), Greedy()):
        ask(tuned, distribution)
    places = ("target", "draft", 8, PASSES)
    assert priced == [(Greedy(), *places), (Distribution(0.7), *places)]
    first, second, other, third = loop.policies
    assert isinstance(first, FixedLength)
    assert isinstance(other, FixedLength)
    assert isinstance(second, AdaptiveLength)
    assert second is third, "what a kind has learnt was lost"
    assert second.cost_model == PRICES


def test_only_so_many_kinds_are_remembered(loop: Loop, priced: list[tuple[Any, ...]]) -> None:
    tuned = Tuning(lambda: True, unexpected).tuned(loop)
    for number in range(MAX_KINDS + 1):
        ask(tuned, Distribution(1 + number))
    ask(tuned, Distribution(1 + MAX_KINDS))
    assert len(priced) == MAX_KINDS + 1
    ask(tuned, Distribution(1))
    assert len(priced) == MAX_KINDS + 2


def test_a_measurement_that_fails_is_told_once_and_the_length_stays_fixed(loop: Loop) -> None:
    told: list[Exception] = []
    tuned = Tuning(lambda: True, told.append).tuned(loop)
    for _ in range(3):
        ask(tuned)
    assert len(told) == 1
    assert all(isinstance(policy, FixedLength) for policy in loop.policies)


def test_between_measured_lengths_prices_lie_on_a_line() -> None:
    assert list(interpolated([0, 1, 4, 6], [1.0, 3.0, 9.0, 5.0])) == [1, 3, 5, 7, 9, 7, 5]


def test_the_least_disturbed_time_counts_and_the_first_pass_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = iter([0.1, 3.0, 1.0, 2.0])

    def times(_: object, __: object, ___: object, lengths: list[int]) -> Any:
        factor = next(passes)
        return (8.0 * factor, 4.0 * factor), [factor * (5 + n) for n in lengths], [factor, 0.0, 9.0]

    monkeypatch.setattr(timing, "_timings", times)
    assert measure(Greedy(), None, None, 2, 4) == CostModel(2.0, 1.0, (5.0, 5.0, 5.0), look=2.0)


def test_a_disturbed_measurement_makes_no_price_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    def disturbed(_: object, __: object, ___: object, lengths: list[int]) -> Any:
        return (8.0, 40.0), [3.0 for _ in lengths], [-1.0]  # draft tokens of 10 s in rounds of 3

    monkeypatch.setattr(timing, "_timings", disturbed)
    assert measure(Greedy(), None, None, 2, 2) == CostModel(2.0, 10.0, (10.0, 10.0, 10.0), look=0.0)


@pytest.mark.real
@pytest.mark.parametrize("distribution", [Greedy(), Distribution(0.7)])
def test_prices_of_the_demo_pair(pair: tuple[Path, Path], distribution: Any) -> None:
    (target, _), (draft, _) = (mlx_lm.load(str(folder)) for folder in pair)
    prices = measure(distribution, target, draft, 6, PASSES)
    assert prices.max_length == 6
    assert 0 < prices.draft < prices.single < prices.verify[6], "the draft model is the small one"
    assert prices.look < prices.verify[6], "a look is a wait, and no pass"


@pytest.mark.real
def test_a_request_that_asks_for_it_is_tuned_by_the_running_engine(drafted: Engine) -> None:
    for _ in range(2):
        body: dict[str, Any] = {"max_tokens": 60, "num_draft_tokens": 8}
        body |= {"prompt": turn("Tell me a story"), "headers": {"X-Draftd-Draft": "auto"}}
        drafted.generation(functools.partial(drafted.ask, "/v1/completions", **body))
    first, second = drafted.records("generation")[-2:]
    assert first["draft_length"] is second["draft_length"] is None
    assert len(first["proposed_by_position"]) == FIRST_LENGTH
    assert "speedup" not in first, "its prices are not known yet"
    assert first["tokens"] == second["tokens"] == 60
    assert (
        second["rounds"] == 0 or second["speedup"] > 0
    )  # where drafting does not pay, there may be no round
