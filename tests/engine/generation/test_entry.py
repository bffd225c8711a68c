"""The wrapper around mlx_lm's function: who drafts and how long, what is counted, reported and measured."""

import functools
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.sample_utils import make_sampler

from draftd.engine.generation import entry
from draftd.engine.generation.acceptance import AcceptanceCount, Steps
from draftd.engine.generation.calibration import Calibration
from draftd.engine.generation.entry import FIRST_LENGTH, MAX_KNOWN, SpeculativeStep, distribution_of
from draftd.engine.generation.estimates import CostModel
from draftd.engine.generation.policy import AdaptiveLength, DraftPolicy, FixedLength
from draftd.engine.generation.sampling import (
    DISTRIBUTION_ATTRIBUTE,
    Distribution,
    Greedy,
    with_distribution,
)
from draftd.protocol import PAPER_RULE, PLAIN_RULE, Costs
from tests.engine.served import Engine, turn

D, T = True, False  # a token of the draft model, of the target model
COST_MODEL = CostModel(2.0, 1.0, tuple(2.0 + n for n in range(9)))


class Sampler:
    def __init__(self, distribution: object) -> None:
        setattr(self, DISTRIBUTION_ATTRIBUTE, distribution)


def steps(*origins: bool) -> list[Any]:
    return [(number, None, origin) for number, origin in enumerate(origins)]


class World:
    """Stands for both loops and for the measurement, and notes what happens and with what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
        self.tokens: list[Any] = steps(T)
        self.events: list[str] = []
        self.lengths: list[int] = []  # of drafts in mlx_lm's loop
        self.policies: list[DraftPolicy] = []  # in ours
        self.measured: list[Calibration] = []
        self.errors: list[Exception] = []
        self.failure: Exception | None = None
        self.counts: list[AcceptanceCount] = []
        self.costs: list[CostModel | None] = []
        self.adaptive = False
        monkeypatch.setattr(mx, "stream", nullcontext)
        monkeypatch.setattr(entry, "measure", self.measure)
        monkeypatch.setattr(entry, "generate", self.our_loop)
        everything: dict[str, Any] = {"tick": None, "report": self.report, "own_loop": True}
        self.step = SpeculativeStep(
            self.mlx_lms_loop,
            **(everything | parts),
            wants_adaptive=lambda: self.adaptive,
            on_error=self.errors.append,
        )

    def ask(self, distribution: object = Greedy(), length: int = 8, **others: Any) -> list[Any]:
        sampler = Sampler(distribution)
        models = ("prompt", "target", "draft", "stream")
        return list(self.step(*models, num_draft_tokens=length, max_tokens=9, sampler=sampler, **others))

    def mlx_lms_loop(
        self,
        prompt: Any,
        model: Any,
        draft_model: Any,
        stream: Any = None,
        *,
        num_draft_tokens: int = 2,
        max_tokens: int = 256,
        sampler: Any = None,
        logits_processors: Any = None,
        prompt_cache: Any = None,
        prefill_step_size: int = 512,
        kv_bits: int | None = None,
        kv_group_size: int = 64,
    ) -> Steps:
        self.models = model, draft_model
        self.lengths.append(num_draft_tokens)
        return self._yield()

    def our_loop(self, distribution: Any, policy: DraftPolicy, *models: Any, **others: Any) -> Steps:
        assert models == ("prompt", "target", "draft", "stream")
        assert others == {"max_tokens": 9, "prompt_cache": None, "prefill_step_size": 512}
        self.policies.append(policy)
        return self._yield()

    def _yield(self) -> Steps:
        try:
            for token in self.tokens:
                if isinstance(token, Exception):
                    raise token
                yield token
        finally:
            self.events.append("closed")

    def measure(self, calibration: Calibration, model: Any, draft_model: Any) -> CostModel:
        self.events.append("measured")
        self.measured.append(calibration)
        if self.failure:
            raise self.failure
        return COST_MODEL

    def report(self, count: AcceptanceCount, costs: CostModel | None) -> None:
        self.events.append("reported")
        self.counts.append(count)
        self.costs.append(costs)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


# --- counting -----------------------------------------------------------------------------------------------


def test_tokens_pass_through_and_are_counted(world: World) -> None:
    world.tokens = steps(D, T)
    assert world.ask(length=5) == world.tokens
    (count,) = world.counts
    assert (count.draft_length, count.max_tokens, count.proposed, count.accepted) == (5, 9, 5, 1)


def test_the_defaults_are_those_of_mlx_lm(world: World) -> None:
    list(world.step("prompt", "target", "draft"))
    assert (world.counts[0].draft_length, world.counts[0].max_tokens) == (2, 256)


def test_whatever_ends_it_the_loop_is_closed_first_and_the_count_reported_last(world: World) -> None:
    world.tokens = steps(D, D, D, T)
    running = world.step("prompt", "target", "draft", num_draft_tokens=3)
    next(running)
    running.close()
    assert world.events == ["closed", "measured", "reported"]
    assert (world.counts[0].accepted, world.counts[0].truncated_rounds) == (1, 1)


def test_an_error_in_generation_passes_and_what_was_counted_is_reported(world: World) -> None:
    world.tokens = [*steps(T, T), RuntimeError("out of memory")]
    with pytest.raises(RuntimeError, match="out of memory"):
        world.ask(length=3)
    assert world.counts[0].proposed == 6


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param([("token", "logprobs")], id="a step of another shape"),
        pytest.param(steps(D, D, D), id="more drafted than proposed"),
    ],
)
def test_what_cannot_be_counted_is_generated_and_not_reported(world: World, odd: list[Any]) -> None:
    world.tokens = odd
    assert world.ask(length=1) == odd
    assert "reported" not in world.events


# --- who drafts, and how long -------------------------------------------------------------------------------


def test_with_a_fixed_length_only_the_papers_rule_needs_our_loop(world: World) -> None:
    for distribution in (Greedy(), Distribution(0.7), None):
        world.ask(distribution, length=4)
    assert world.lengths == [4, 4]
    assert len(world.policies) == 1
    assert world.policies[0].tokens_to_draft([]) == 4
    assert [count.rule for count in world.counts] == [PLAIN_RULE, PAPER_RULE, PLAIN_RULE]
    assert {count.draft_length for count in world.counts} == {4}


def test_without_our_loop_mlx_lms_own_drafts_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, own_loop=False)
    world.ask(Distribution(0.7), length=4)
    world.adaptive = True
    world.ask(Distribution(0.7), length=8)
    assert world.lengths == [4, FIRST_LENGTH]
    assert [count.draft_length for count in world.counts] == [4, FIRST_LENGTH]
    assert not world.policies


def test_without_counting_the_request_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, report=None)
    world.adaptive = True
    world.ask(length=8)
    assert (world.lengths, world.measured) == ([8], [])


def test_each_call_of_a_model_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks: list[None] = []
    world = World(monkeypatch, tick=lambda: ticks.append(None))
    list(world.step("prompt", str.upper, str.lower))
    target, draft = world.models
    assert (target("aB"), draft("aB"), len(ticks)) == ("AB", "ab", 2)


def test_where_mlx_lms_own_loop_drafts_no_length_adapts(world: World) -> None:
    world.adaptive = True
    world.ask(logits_processors=[print])
    world.ask(length=2, logits_processors=[print])
    assert (world.policies, world.lengths) == ([], [FIRST_LENGTH, 2])
    assert world.measured == [Calibration.fixed(FIRST_LENGTH), Calibration.fixed(2)]


def test_requests_that_sample_alike_share_what_is_learnt(world: World) -> None:
    world.adaptive = True
    for distribution in (Greedy(), Greedy(), Distribution(0.7), Greedy()):
        world.ask(distribution)
    assert world.measured == [
        Calibration.adaptive(Greedy(), 8),
        Calibration.adaptive(Distribution(0.7), 8),
    ]
    first, second, other, third = world.policies
    assert isinstance(first, FixedLength)
    assert first.tokens_to_draft([]) == FIRST_LENGTH
    assert isinstance(other, FixedLength)
    assert isinstance(second, AdaptiveLength)
    assert second is third, "what was learnt has been lost"
    assert second.cost_model is COST_MODEL
    assert {count.draft_length for count in world.counts} == {None}


def test_only_so_many_ways_of_drafting_are_remembered(world: World) -> None:
    world.adaptive = True
    for number in range(MAX_KNOWN + 1):
        world.ask(Distribution(1 + number))
    world.ask(Distribution(1 + MAX_KNOWN))
    assert len(world.measured) == MAX_KNOWN + 1
    world.ask(Distribution(1))
    assert len(world.measured) == MAX_KNOWN + 2


# --- costs --------------------------------------------------------------------------------------------------


def test_costs_are_measured_once_for_each_length_and_reported_from_the_first_request_on(world: World) -> None:
    for length in (4, 4, 2, 0, 4):
        world.ask(length=length)
    assert world.measured == [Calibration.fixed(4), Calibration.fixed(2)]
    assert world.costs == [COST_MODEL, COST_MODEL, COST_MODEL, None, COST_MODEL]


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_measurement_that_fails_is_told_once_and_disturbs_nothing(world: World, adaptive: bool) -> None:
    world.adaptive = adaptive
    world.failure = RuntimeError("out of memory")
    for _ in range(3):
        assert world.ask() == world.tokens
    assert world.errors == [world.failure]
    assert world.costs == [None] * 3
    assert all(isinstance(policy, FixedLength) for policy in world.policies)


# --- which requests our loop can take -----------------------------------------------------------------------

REQUEST: dict[str, Any] = {
    "prompt": mx.array([1, 2]),
    "num_draft_tokens": 3,
    "max_tokens": 9,
    "sampler": with_distribution(make_sampler)(0.7),
    "prompt_cache": [],
}


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"kv_bits": None, "kv_group_size": 64, "logits_processors": []}, True),
        ({"logits_processors": [print]}, False),
        ({"kv_bits": 4}, False),
        ({"num_draft_tokens": 0}, False),
        ({"max_tokens": 0}, False),
        ({"sampler": mx.argmax}, False),
        ({"sampler": None}, False),
        ({"new_in_a_later_version": True}, False),
    ],
)
def test_the_distribution_is_known_where_nothing_else_shapes_it(changes: dict[str, Any], known: bool) -> None:
    assert distribution_of(REQUEST | changes) == (Distribution(0.7) if known else None)


# --- on the running engine ----------------------------------------------------------------------------------


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


@pytest.mark.real
def test_a_request_that_asks_for_it_adapts_its_draft_length(drafted: Engine) -> None:
    def records(times: int) -> Iterable[dict[str, Any]]:
        body: dict[str, Any] = {"max_tokens": 60, "num_draft_tokens": 8}
        body |= {"prompt": turn("Tell me a story"), "headers": {"X-Draftd-Draft": "auto"}}
        for _ in range(times):
            drafted.generation(functools.partial(drafted.ask, "/v1/completions", **body))
            yield drafted.records("generation")[-1]

    first, second = records(2)
    assert first["draft_length"] is second["draft_length"] is None
    assert len(first["proposed_by_position"]) == FIRST_LENGTH
    assert first["speedup"] > 0, "its costs were measured when it ended"
    assert first["tokens"] == second["tokens"] == 60
    # Where drafting does not pay there may be no round.
    assert second["rounds"] == 0 or second["speedup"] > 0
