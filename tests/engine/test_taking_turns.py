"""Several requests at work: each gets the text that it gets alone, whatever comes, goes or breaks beside it."""

from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draftd.engine import records
from draftd.engine.answers.presence import LEFT_ATTRIBUTE, LeftError
from draftd.engine.generation import loop
from draftd.engine.generation.models import LoadedModels
from tests.engine.company import Breaking, BrokenError, alone, generator_for, pair, prompt
from tests.engine.stand_in import Asked, Generator


@pytest.fixture(autouse=True)
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr(records, "report_generation", lambda *args: calls.append(args))
    return calls


KINDS = ["qwen2", "gemma3_text", "qwen3_next", "falcon_h1", "quantized", "jamba", "llama4"]
"""Plain layers, windows, states, and lists, which are read together; other states, and chunks, which are not."""

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
