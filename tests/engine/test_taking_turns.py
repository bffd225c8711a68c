"""Several requests at work: each gets the text that it gets alone, whatever comes, goes or breaks beside it."""

import random
from functools import cache
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm import server

from draftd.engine import records
from draftd.engine.answers.presence import LEFT_ATTRIBUTE, LeftError
from draftd.engine.generation import loop, round_times, together
from draftd.engine.generation.batch_policy import BatchPolicy
from draftd.engine.generation.caches.ragged import RaggedRow
from draftd.engine.generation.choices import ALONE, REVIEW, Choice
from draftd.engine.generation.models import LoadedModels
from draftd.engine.generation.policy import Row
from draftd.engine.generation.sampling import Greedy
from draftd.engine.serving import NOT_EXACT
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER
from tests.engine.architectures.models import make, noisy
from tests.engine.stand_in import VOCABULARY, Asked, Generator

KINDS = ["qwen2", "gemma3_text", "qwen3_next", "falcon_h1", "quantized", "jamba", "llama4"]
"""Plain layers, windows, states, and lists, which are read together; other states, and chunks, which are not."""


@pytest.fixture(autouse=True)
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr(records, "report_generation", lambda *args: calls.append(args))
    return calls


QUANTIZED = "quantized"
"""Plain layers that are quantized from the 30th token of a text on. What they have read of one text does not serve
another one: its tokens would see numbers that are quantized where they see others alone.
"""
PLAIN_SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}


@cache
def pair(name: str) -> tuple[Any, Any]:
    if name == QUANTIZED:
        return make("qwen2", **PLAIN_SIZES), noisy("qwen2", **PLAIN_SIZES)
    return make(name), noisy(name)


def generator_for(name: str, step: int = 512) -> Generator:
    if name != QUANTIZED:
        return Generator(*pair(name), step)
    made = Generator(
        *pair(name)
    )  # layers are quantized after a whole step, so the text depends on its length
    made.cli_args.kv_bits, made.cli_args.kv_group_size, made.cli_args.quantized_kv_start = 8, 32, 30
    made.prompt_cache.fetch_nearest_cache = lambda _, tokens, **__: (None, tokens)  # type: ignore[method-assign]
    return made


def prompt(length: int, start: int = 0) -> list[int]:
    return [(start + 7 * n) % (VOCABULARY - 10) + 4 for n in range(length)]


@cache
def alone(
    name: str, length: int, start: int, seed: int | None, temperature: float, max_tokens: int
) -> tuple[int, ...]:
    """The text of a request without a draft, when nobody else is there."""
    asked = Asked(prompt(length, start), max_tokens, draft=0, seed=seed, temperature=temperature)
    generator_for(name).serve((0, asked))
    assert isinstance(asked.came[-2], server.Response), asked.came
    return tuple(asked.tokens)


REQUEST = st.fixed_dictionaries(
    {
        "cycle": st.integers(0, 25),
        "length": st.sampled_from([1, 2, 9, 40, 70]),
        "start": st.sampled_from([0, 0, 0, 5]),  # most begin with the same tokens
        "draft": st.sampled_from([0, 1, 4, 7]),
        "auto": st.booleans(),
        "seeded": st.booleans(),
        "leaves": st.one_of(st.none(), st.none(), st.integers(1, 12)),
        "max_tokens": st.sampled_from([1, 6, 25]),
    }
)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=12, deadline=None)
@given(requests=st.lists(REQUEST, min_size=2, max_size=6), step=st.sampled_from([8, 512]))
def test_the_text_is_that_of_the_request_alone(name: str, requests: list[dict[str, Any]], step: int) -> None:
    generator = generator_for(name, step)
    arrivals = []
    for number, one in enumerate(requests):
        seed, temperature = (number, 0.8) if one["seeded"] else (None, 0.0)
        asked = Asked(
            prompt(one["length"], one["start"]),
            one["max_tokens"],
            one["draft"],
            one["auto"],
            seed,
            temperature,
            one["leaves"],
        )
        arrivals.append((one["cycle"], asked))
    generator.serve(*arrivals)
    for (_, asked), one in zip(arrivals, requests, strict=True):
        whole = alone(name, one["length"], one["start"], asked.seed, asked.temperature, one["max_tokens"])
        assert asked.came[-1] is None, asked.came
        assert asked.tokens == list(whole[: len(asked.tokens)])
        if one["leaves"] is None:
            assert len(asked.tokens) == len(whole)


def test_a_title_beside_a_long_answer_has_its_first_token_soon_after_its_prompt() -> None:
    generator = Generator(*pair("qwen2"), step=16, ends=False)
    long = Asked(prompt(30), 120, draft=3)
    title = Asked(prompt(100, start=9), 5, draft=3)
    generator.serve((0, long), (6, title))
    assert title.at[0] - title.read_at <= 3
    rounds_of_long = {at for at in long.at if title.at[0] - 3 <= at <= title.at[-1]}
    assert len(rounds_of_long) >= 3, "the long answer goes on meanwhile"
    assert title.at[-1] < long.at[-1] - 10


def test_prompts_are_read_beside_each_other_and_an_answer_goes_on_between_their_pieces() -> None:
    generator = Generator(*pair("qwen2"), step=4, ends=False)
    answer = Asked(prompt(2), 100, draft=0)
    first, second = Asked(prompt(81, start=3), 2, draft=0), Asked(prompt(41, start=4), 2, draft=0)
    generator.serve((0, answer), (5, first), (5, second))
    assert second.read_at < first.read_at
    of_answer = [at for at in answer.at if 5 <= at <= first.read_at]
    assert len(of_answer) >= 28, "one round of it in each cycle, and 30 pieces were read"


def test_a_client_that_leaves_ends_its_own_request_only() -> None:
    generator = Generator(*pair("qwen2"), step=8)
    stays, leaves = Asked(prompt(20), 60), Asked(prompt(20), 60, leaves=7)
    in_its_prompt = Asked(prompt(60, start=1), 60, leaves=2)
    generator.serve((0, stays), (0, leaves), (2, in_its_prompt))
    assert stays.tokens == list(alone("qwen2", 20, 0, None, 0.0, 60))
    assert leaves.at[-1] < stays.at[-1]
    assert 0 < len(leaves.tokens) < 20
    assert in_its_prompt.came == [None]


class BrokenError(Exception):
    pass


class Breaking(Greedy):
    """Breaks at the fifth token."""

    def shape(self, logits: Any, position: int) -> Any:
        if position >= 5:
            raise BrokenError
        return logits


@pytest.mark.parametrize("draft", [0, 4])
def test_what_breaks_in_the_sampler_of_one_request_ends_that_one_only(
    monkeypatch: pytest.MonkeyPatch, draft: int
) -> None:
    generator = Generator(*pair("qwen3_next"))
    begin = generator.serving._begin

    def beginning(models: Any, generator: Any, prompt: Any, arguments: Any) -> Any:
        answering = begin(models, generator, prompt, arguments)
        if arguments.max_tokens == 33:
            answering.generation.rule = Breaking()
            if answering.generation.draft:
                answering.generation.draft._rule = Breaking()
        return answering

    monkeypatch.setattr(generator.serving, "_begin", beginning)
    good, bad, later = (Asked(prompt(20), tokens, draft) for tokens in (40, 33, 30))
    generator.serve((0, good), (1, bad), (20, later))
    assert isinstance(bad.came[-1], BrokenError)
    assert good.tokens == list(alone("qwen3_next", 20, 0, None, 0.0, 40))
    assert later.tokens == list(alone("qwen3_next", 20, 0, None, 0.0, 30))


def test_a_request_that_cannot_be_begun_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator(*pair("qwen2"))
    monkeypatch.setattr(generator, "_tokenize", refusing(generator._tokenize))
    good, bad = Asked(prompt(20), 20), Asked(prompt(3), 20)
    generator.serve((0, good), (2, bad))
    assert [type(one) for one in bad.came] == [BrokenError]
    assert good.tokens == list(alone("qwen2", 20, 0, None, 0.0, 20))
    assert generator.serving._company.size == 0


def refusing(tokenize: Any) -> Any:
    def tokenizing(tokenizer: Any, request: Any, args: Any) -> Any:
        if len(request.prompt) == 3:
            raise BrokenError
        return tokenize(tokenizer, request, args)

    return tokenizing


def test_a_request_for_mlx_lm_itself_is_given_back_and_nothing_more_is_taken_before_it() -> None:
    generator = Generator(*pair("qwen2"), ends=False)
    first, batched, after = Asked(prompt(5), 30), Asked(prompt(6), batchable=True), Asked(prompt(7), 5)
    taken = generator.serving
    generator._arrivals = [(3, batched), (3, after)]
    taken.serve(generator, generator._queued(first), mx.default_stream(mx.default_device()))
    assert len(first.tokens) == 30
    assert (batched.came, after.came) == ([], [])
    given = taken.given_back()
    assert given is not None
    assert given[0] is batched
    assert taken.given_back() is None


def test_no_more_are_at_work_than_the_flag_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator(*pair("qwen2"))
    generator.cli_args.decode_concurrency = 2
    sizes: list[int] = []
    go_on = generator.serving._go_on

    def noting(work: Any) -> None:
        sizes.append(len(generator.serving._turns))
        go_on(work)

    monkeypatch.setattr(generator.serving, "_go_on", noting)
    asked = generator.serve(*[(0, Asked(prompt(5, n), 10)) for n in range(5)])
    assert max(sizes) == 2
    assert all(len(one.tokens) == 10 or one.tokens[-1] == 2 for one in asked)


def test_the_prompt_cache_gives_way_to_what_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator(*pair("qwen2"))
    generator.serve((0, Asked(prompt(200), 3)))
    stored = generator.prompt_cache.nbytes
    allowed: list[int] = []
    monkeypatch.setattr(generator.prompt_cache, "trim_to", lambda *, n_bytes: allowed.append(n_bytes))
    generator.prompt_cache.max_bytes = 10 * stored
    generator.serve((0, Asked(prompt(200), 3)), (0, Asked(prompt(200), 3)))
    assert allowed == [9 * stored, 8 * stored], "each of them has as much as it was given"


def test_the_prompt_cache_is_told_what_others_take_when_a_prompt_is_looked_for_beside_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = Generator(*pair("qwen2"), ends=False)
    cache, told = generator.prompt_cache, []
    fetch = cache.fetch_nearest_cache

    def noting(model: Any, tokens: list[int], *, at_work: int | None = None) -> Any:
        told.append((at_work, sum(work.answering.cache_bytes for work in generator.serving._turns)))
        return fetch(model, tokens, at_work=at_work)

    monkeypatch.setattr(cache, "fetch_nearest_cache", noting)
    generator.serve((0, Asked(prompt(200), 10)), (3, Asked(prompt(100, 1), 3)))
    generator.serve((0, Asked(prompt(100, 2), 3)))
    (alone, _), (beside, taken), (again, _) = told
    assert (alone, again) == (None, None)
    assert beside == taken > 0


def sizes_at_work(monkeypatch: pytest.MonkeyPatch, generator: Generator) -> list[int]:
    """Return a list to which the number of requests at work is appended in each cycle."""
    sizes: list[int] = []
    cycle = generator.serving._cycle

    def noting() -> None:
        sizes.append(len(generator.serving._turns))
        cycle()

    monkeypatch.setattr(generator.serving, "_cycle", noting)
    return sizes


def test_no_more_are_at_work_than_fit_in_memory_when_they_have_become_as_long_as_they_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = Generator(*pair("qwen2"), ends=False)
    sizes = sizes_at_work(monkeypatch, generator)
    one = LoadedModels(*pair("qwen2"), lambda _: None).cache_size.bytes(300)
    generator.prompt_cache.max_bytes = 2 * one
    asked = generator.serve(*[(number, Asked(prompt(280, number), 20)) for number in range(4)])
    assert max(sizes) == 2
    assert [len(each.tokens) for each in asked] == [20] * 4
    assert [each.at[0] for each in asked] == sorted(each.at[0] for each in asked), "nobody is overtaken"


def test_one_that_leaves_while_it_waits_for_memory_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator(*pair("qwen2"), ends=False)
    generator.prompt_cache.max_bytes = 1
    first, leaves, last = Asked(prompt(5), 20), Asked(prompt(9), 20), Asked(prompt(6), 3)
    cycle = generator.serving._cycle

    def leaving() -> None:
        cycle()
        held = generator.serving._held
        if len(first.tokens) > 5 and held and list(held[0].tokens) == leaves.prompt:
            setattr(held[1], LEFT_ATTRIBUTE, True)

    monkeypatch.setattr(generator.serving, "_cycle", leaving)
    generator.serve((0, first), (1, leaves), (2, last))
    assert [type(one) for one in leaves.came] == [LeftError]
    assert (len(first.tokens), len(last.tokens)) == (20, 3)
    assert last.at[0] > first.at[-1]


def test_a_request_that_fits_nowhere_is_served_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator(*pair("qwen2"), ends=False)
    sizes = sizes_at_work(monkeypatch, generator)
    generator.prompt_cache.max_bytes = 1
    small, large = generator.serve((0, Asked(prompt(5), 10)), (1, Asked(prompt(90), 30)))
    assert (len(small.tokens), len(large.tokens)) == (10, 30)
    assert max(sizes) == 1


def test_each_request_is_counted_apart(reported: list[Any]) -> None:
    generator = Generator(*pair("qwen2"))
    sizes = [30, 20, 10]
    asked = generator.serve(*[(0, Asked(prompt(9, n), size, draft=3)) for n, size in enumerate(sizes)])
    counts = {count.tokens: (count, seconds) for count, _, seconds, _ in reported}
    assert set(counts) == {len(one.tokens) for one in asked}
    for count, seconds in counts.values():
        assert count.rounds * 3 >= count.proposed
        assert count.tokens - count.alone - count.accepted in {count.rounds, count.rounds - 1}
        assert seconds > 0
    assert generator.ticks >= sum(len(one.tokens) for one in asked) / 4  # a round of 3 drafts has 4 at most


def test_how_long_others_took_is_not_counted(monkeypatch: pytest.MonkeyPatch, reported: list[Any]) -> None:
    now = [0.0]
    clock = type("Clock", (), {"perf_counter": staticmethod(lambda: now[0])})
    monkeypatch.setattr(loop, "time", clock)
    generator = Generator(*pair("qwen2"))
    go_on = generator.serving._go_on

    def slow(work: Any) -> None:
        now[0] += 100.0  # between two turns
        go_on(work)

    monkeypatch.setattr(generator.serving, "_go_on", slow)
    generator.serve((0, Asked(prompt(9), 12)), (0, Asked(prompt(9, 4), 12)))
    assert [seconds for _, _, seconds, _ in reported] == [0.0, 0.0]


# --- in one pass --------------------------------------------------------------------------------------------


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
