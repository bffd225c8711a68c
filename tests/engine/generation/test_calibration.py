"""What single tokens cost: measured on models of known times, and on the demo pair."""

import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest

from draftd.engine.generation import calibration as module
from draftd.engine.generation.acceptance import Tally
from draftd.engine.generation.calibration import TIMED, costs_of, measure
from draftd.engine.generation.choices import ALONE, Choice
from draftd.engine.generation.drafters.model import ModelDrafter
from draftd.engine.generation.loop import Generation
from draftd.engine.generation.round_times import RoundTimes
from draftd.engine.generation.sampling import Greedy, Logits
from draftd.protocol import MODEL_DRAFTER, Costs
from tests.engine.architectures.models import make, noisy
from tests.engine.generation.pairs import Models
from tests.engine.generation.toys import Scripted, Toy, by_model, text_of, toy_generation

TABLE = [[0.1, 0.9], [0.9, 0.1]]


class Clock:
    """A time that passes only where a model reads."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Slow(Toy):
    """A model whose passes take so long; the first ones with something to compile take longer."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__(TABLE)
        self._clock, self._seconds, self._compiling = clock, seconds, 3

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        self._compiling -= 1
        self._clock.now += self._seconds * (10 if self._compiling > 0 else 1)
        return super().__call__(tokens, cache)


def test_both_models_are_timed_by_themselves_and_without_what_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    logits = Logits(2)
    generation = Generation(
        text=[0, 1, 0, 1],
        max_tokens=0,
        target=Slow(clock, 4.0).reader(),
        rule=Greedy(),
        logits=logits,
        policy=Scripted(),
        draft=ModelDrafter(Slow(clock, 1.0).reader(), logits, Greedy()),
    )
    assert measure(generation) == (4.0, 1.0)


def test_without_a_draft_model_there_is_nothing_to_measure() -> None:
    generation = toy_generation(Greedy(), tokens=1)
    generation.draft = None
    with pytest.raises(ValueError, match="no draft model"):
        measure(generation)


@pytest.mark.parametrize("name", ["llama", "qwen3_next", "deepseek_v41"])
@pytest.mark.parametrize("script", [by_model(3), [Choice(ALONE)]], ids=["drafted", "alone"])
def test_both_models_go_on_from_the_end_of_the_text(name: str, script: list[Choice]) -> None:
    pair = Models(make(name), noisy(name), 256)
    generation = pair.generation([5, 6, 7, 8], Scripted(*script), tokens=9)
    text_of(generation)
    assert all(seconds > 0 for seconds in measure(generation))
    assert generation.draft
    readers = generation.target, generation.draft.reader
    assert [reader.position for reader in readers] == [len(generation.text)] * 2
    prompt = [*generation.text, 9, 10]
    onward = pair.generation(prompt, Scripted(*by_model(2)), tokens=9, readers=readers)
    assert text_of(onward) == prompt + pair.alone(prompt, 9)


def times(*rounds: tuple[str, int, float]) -> RoundTimes:
    known = RoundTimes()
    for source, length, seconds in rounds:
        for _ in range(2):  # the first time may have been a compilation
            known.add(source, length, seconds)
    return known


MEASURED = 2.0, 0.5  # a token alone, a draft token


def test_costs_are_those_of_rounds_as_long_as_the_counted_ones() -> None:
    known = times((ALONE, 0, 3.0), (MODEL_DRAFTER, 2, 4.0), (MODEL_DRAFTER, 4, 9.0))
    assert costs_of(known, Tally(10, 40, 20), MEASURED) == Costs(3.0, 0.5, 7.0)
    assert costs_of(known, Tally(10, 21, 20), MEASURED) == Costs(3.0, 0.5, 3.0)


def test_what_was_never_seen_without_a_draft_was_measured() -> None:
    assert costs_of(times((MODEL_DRAFTER, 4, 9.0)), Tally(1, 4, 0), MEASURED).single == 2.0


def test_a_disturbed_measurement_makes_no_cost_impossible() -> None:
    assert costs_of(times((MODEL_DRAFTER, 4, 1.0)), Tally(1, 4, 0), MEASURED).verify > 0


@pytest.mark.real
@pytest.mark.alone
def test_costs_of_the_demo_pair(pair: tuple[Path, Path]) -> None:
    target, draft = (mlx_lm.load(str(folder))[0] for folder in pair)
    generation = Models(target, draft, target.args.vocab_size).generation([1, 5, 9], Scripted(*by_model(3)))
    text_of(generation)
    started = time.perf_counter()
    single, drafted = measure(generation)
    assert 0 < drafted < single, "the draft model is the small one"
    assert 2 * TIMED * (single + drafted) < 4 * (time.perf_counter() - started)
