"""Several requests in one pass: each gets the text that it gets alone, whatever ends or breaks beside it."""

import random
from typing import Any

import mlx.core as mx
import pytest

from draftd.engine import records
from draftd.engine.generation import round_times, together
from draftd.engine.generation.batch_policy import BatchPolicy
from draftd.engine.generation.caches.ragged import RaggedRow
from draftd.engine.generation.choices import ALONE, REVIEW, Choice
from draftd.engine.generation.models import LoadedModels
from draftd.engine.generation.policy import Row
from draftd.engine.serving import NOT_EXACT
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER
from tests.engine.architectures.models import make
from tests.engine.company import (
    QUANTIZED,
    Breaking,
    BrokenError,
    alone,
    generator_for,
    pair,
    prompt,
)
from tests.engine.stand_in import Asked, Generator


@pytest.fixture(autouse=True)
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr(records, "report_generation", lambda *args: calls.append(args))
    return calls


def scripted(monkeypatch: pytest.MonkeyPatch, rng: random.Random) -> list[int]:
    """Let all rows of a round draft as many tokens, a length drawn anew each time, and some have turns; return the
    lengths.
    """
    lengths: list[int] = []

    def choose(self: Any, rows: list[Row]) -> list[Choice | None]:
        length = rng.choice([0, 0, 0, 1, 2, 5, 8])
        lengths.append(length)
        source = rng.choice([MODEL_DRAFTER, MODEL_DRAFTER, LOOKUP_DRAFTER])
        if rng.random() < 0.05:
            return [Choice(REVIEW) if row.now.model else Choice(ALONE) for row in rows]
        return [None if rng.random() < 0.2 else row.drafting(source, length) for row in rows]

    monkeypatch.setattr(BatchPolicy, "choose", choose)
    return lengths


@pytest.mark.parametrize("name", ["qwen2", "gemma3_text", "qwen3_next", "falcon_h1", QUANTIZED])
@pytest.mark.parametrize("seed", range(4))
def test_the_text_of_rows_that_keep_different_numbers_of_tokens_is_that_of_each_alone(
    monkeypatch: pytest.MonkeyPatch, seed: int, name: str
) -> None:
    rng = random.Random(seed)
    lengths = scripted(monkeypatch, rng)
    generator = generator_for(name, rng.choice([8, 512]))
    asked = []
    for number in range(10):
        own_seed = number if rng.random() < 0.4 else None
        temperature = 0.0 if own_seed is None else 0.8
        length, start = rng.choice([1, 2, 9, 40, 70]), rng.choice([0, 0, 5])
        tokens, leaves = rng.choice([1, 6, 25, 60, 90]), rng.choice([0, 0, 0, rng.randint(1, 9)]) or None
        arrives = rng.randrange(0, 15)
        if number < 2:  # so that there are some that stand together in any case
            tokens, leaves, arrives = 60, None, 0
        one = Asked(prompt(length, start), tokens, rng.choice([0, 4, 7]), seed=own_seed, leaves=leaves)
        one.temperature = temperature
        asked.append((arrives, one, alone(name, length, start, own_seed, temperature, tokens)))
    generator.serve(*((cycle, one) for cycle, one, _ in asked))
    assert any(lengths)
    for _, one, whole in asked:
        assert one.came[-1] is None, one.came
        assert one.tokens == list(whole[: len(one.tokens)])
        assert one.leaves is not None or len(one.tokens) == len(whole)
    assert not generator.serving._together._batches, "the memory of the batches is given back"


class Observed:
    """A model, with the shapes of its passes."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.passes: list[tuple[int, int]] = []

    def __call__(self, tokens: Any, *args: Any, **kwargs: Any) -> Any:
        self.passes.append(tokens.shape)
        return self._model(tokens, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@pytest.mark.parametrize(("name", "rows"), [("qwen2", 3), ("gemma3_text", 3), ("jamba", 1)])
def test_one_pass_serves_all_where_the_kind_of_cache_allows_it(
    name: str, rows: int, reported: list[Any]
) -> None:
    target = Observed(make(name))
    generator = Generator(target, None, ends=False)
    asked = [Asked(prompt(9, n), 60, draft=0) for n in range(3)]
    generator.serving._models = LoadedModels(make(name), None, lambda _: None)
    generator.serving._models.target = target
    generator.serve(*((0, one) for one in asked))
    widths = [shape[0] for shape in target.passes[-60:-10]]
    assert max(widths) == rows
    assert widths.count(rows) > 0.9 * len(widths)
    assert [len(one.tokens) for one in asked] == [60, 60, 60]
    for count, *_ in reported:
        assert count.passes in {60, 61}
        assert 0.9 * rows < count.rows / count.passes <= rows


def test_that_requests_cannot_share_passes_is_said_once_in_the_record_of_the_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(records, "report", said.append)
    generator = Generator(*pair("jamba"))
    for _ in range(2):
        generator.serve((0, Asked(prompt(9), 5)), (0, Asked(prompt(9, 3), 5)))
    assert [NOT_EXACT in record for record in said] == [True]


def test_the_last_one_goes_on_as_if_it_had_always_been_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator(*pair("qwen2"), ends=False)
    long, short = Asked(prompt(30), 80, draft=3), Asked(prompt(9, 3), 8, draft=3)
    kinds: list[tuple[int, bool]] = []
    go_on = generator.serving._cycle

    def cycling() -> None:
        go_on()
        works = list(generator.serving._turns)
        kinds.extend((len(works), work.answering.generation.target.is_joined) for work in works)

    monkeypatch.setattr(generator.serving, "_cycle", cycling)
    generator.serve((0, long), (3, short))
    assert (2, True) in kinds
    assert kinds[-1] == (1, False)


def test_a_batch_that_all_have_left_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of four end while the last one writes; before, their texts grow out of their group, one by one."""
    monkeypatch.setattr(round_times, "SMALLEST_DEPTH", 32)
    generator = Generator(*pair("qwen2"), ends=False)
    serving = generator.serving
    cycle, step = serving._cycle, serving._step
    seen: list[tuple[int, int]] = []

    def batches(works: list[Any]) -> set[Any]:
        caches = [reader.cache for work in works for reader in work.answering.readers]
        return {cache.batch for cache in caches if isinstance(cache, RaggedRow)}

    def cycling() -> None:
        cycle()
        here = batches(list(serving._turns))
        assert serving._together.nbytes == sum(batch.nbytes for batch in here)
        seen.append((len(serving._turns), len(here)))

    def stepping(work: Any, reply: Any) -> Any:
        if not serving._company.crowded and not batches([work]):
            assert not serving._together.nbytes
        return step(work, reply)

    monkeypatch.setattr(serving, "_cycle", cycling)
    monkeypatch.setattr(serving, "_step", stepping)
    asked = [Asked(prompt(9 + 5 * n, n), count, draft=3) for n, count in enumerate((70, 50, 50, 160))]
    generator.serve(*((0, one) for one in asked))
    assert [len(one.tokens) for one in asked] == [70, 50, 50, 160]
    assert max(seen) >= (4, 2)
    assert (1, 0) in seen


@pytest.mark.parametrize("broken", ["pass", "computing"])
def test_what_breaks_in_a_pass_of_all_is_told_to_all_and_the_next_request_is_served(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    generator = Generator(*pair("qwen2"), ends=False)
    first, second, later = (Asked(prompt(9, n), 40, draft=0) for n in range(3))
    calls, computing = [0], [False]

    def noting(inner: Any) -> Any:
        def call(waiting: Any) -> Any:
            computing[0] = len(waiting) > 1
            return inner(waiting)

        return call

    def breaking(inner: Any) -> Any:
        def call(*args: Any) -> Any:
            of_all = broken == "pass" or (isinstance(args[0], list) and computing[0])
            calls[0] += of_all
            if of_all and calls[0] == 10:
                raise BrokenError
            return inner(*args)

        return call

    if broken == "pass":
        monkeypatch.setattr(together, "read_together", breaking(together.read_together))
    else:
        monkeypatch.setattr(mx, "eval", breaking(mx.eval))
        monkeypatch.setattr(together, "computed", noting(together.computed))
    generator.serve((0, first), (0, second), (50, later))
    ends = [type(one.came[-1]) for one in (first, second)]
    assert ends == ([BrokenError] * 2 if broken == "pass" else [type(None)] * 2)
    assert len(later.tokens) == 40


class FailingGrammar:
    """Allows everything, and fails after some tokens."""

    complete = False

    def __init__(self) -> None:
        self._left = 6

    def ends_with(self, token: int) -> bool:
        return token == 2

    def take(self, _: int) -> None:
        self._left -= 1
        if not self._left:
            raise BrokenError

    def forced(self, _: int) -> list[int]:
        return []

    may_follow = None
    only_end_follows = False

    def allowed(self, tokens: list[int]) -> list[int]:
        return tokens

    def mask(self, rows: Any, _: Any) -> Any:
        return rows


def ending(generation: Any, way: str) -> None:
    """Let a request end in the middle of its answer."""
    if way == "sampler":
        generation.rule = Breaking()
    elif way == "schema":
        generation.grammar = FailingGrammar()
        generation.lookup = None


@pytest.mark.parametrize("way", ["sampler", "schema", "client", "computing"])
@pytest.mark.parametrize("name", ["qwen2", "gemma3_text", "qwen3_next"])
def test_what_ends_one_request_in_a_batch_leaves_the_others_as_they_are(
    monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    generator = Generator(*pair(name))
    scripted(monkeypatch, random.Random(3))
    begin = generator.serving._begin
    joined: list[bool] = []

    def beginning(models: Any, generator: Any, prompt: Any, arguments: Any) -> Any:
        answering = begin(models, generator, prompt, arguments)
        if arguments.max_tokens == 33:
            ending(answering.generation, way)
            end = generator.serving._end

            def ended(work: Any, error: Exception | None = None) -> None:
                joined.append(work.answering is answering and work.answering.generation.target.is_joined)
                end(work, error)

            monkeypatch.setattr(generator.serving, "_end", ended)
        return answering

    monkeypatch.setattr(generator.serving, "_begin", beginning)
    first, second = Asked(prompt(20), 40), Asked(prompt(9, 3), 40)
    bad = Asked(prompt(20, 1), 33, leaves=12 if way == "client" else None)
    if way == "computing":
        fail_once_for(monkeypatch, bad)
    generator.serve((0, first), (0, bad), (0, second))
    assert first.tokens == list(alone(name, 20, 0, None, 0.0, 40))
    assert second.tokens == list(alone(name, 9, 3, None, 0.0, 40))
    assert any(joined), "it ended in the batch"
    if way != "client":
        assert isinstance(bad.came[-1], BrokenError)
    assert bad.tokens == list(alone(name, 20, 1, None, 0.0, 33)[: len(bad.tokens)])
    assert not generator.serving._together._batches


def fail_once_for(monkeypatch: pytest.MonkeyPatch, asked: Asked) -> None:
    """Let what one request waits for fail on the device, after its fifth token."""
    computed: Any = together.computed

    def computing(waiting: Any) -> Any:
        answers = computed(waiting)
        for work in waiting:
            # One that is on its own has no name there.
            if work and work.answering.prompt.put == asked.put and len(asked.tokens) >= 5:
                answers[work] = BrokenError()
        return answers

    monkeypatch.setattr(together, "computed", computing)
