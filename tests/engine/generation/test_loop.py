"""The loop: the text is that of the target model alone, and whatever ends it leaves both caches in order."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import QuantizedKVCache

from draftd.engine.generation import loop
from draftd.engine.generation.acceptance import AcceptanceCount
from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.choices import ALONE, Choice, Situation
from draftd.engine.generation.drafters.lookup import AnswerStore
from draftd.engine.generation.loop import Generation
from draftd.engine.generation.policy import DraftPolicy
from draftd.engine.generation.sampling import Greedy, Rule, Seeded, Shape, Speculative
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER
from tests.engine.architectures.models import make, noisy
from tests.engine.generation.pairs import ALL_SCRIPTS, Models
from tests.engine.generation.toys import (
    ASTRAY,
    CYCLE,
    SCRIPTS,
    Scripted,
    by_lookup,
    by_model,
    text_of,
    toy_generation,
)


@pytest.fixture(scope="module")
def texts(models: Models, prompts: list[list[int]]) -> list[list[int]]:
    return [models.alone(prompt) for prompt in prompts]


# --- the text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "drafters"),
    [
        pytest.param(DraftPolicy, {"model": False, "lookup": False}, id="no drafter"),
        *(
            pytest.param(lambda n=n: DraftPolicy(fixed=n), {"lookup": False}, id=f"a fixed length of {n}")
            for n in (1, 5)
        ),
        pytest.param(lambda: DraftPolicy(fixed=4), {}, id="a fixed length and lookups"),
        pytest.param(DraftPolicy, {"model": False}, id="lookups that adapt"),
        pytest.param(DraftPolicy, {}, id="all that adapts"),
        *(pytest.param(lambda s=s: Scripted(*s), {}, id=name) for name, s in SCRIPTS.items()),
    ],
)
def test_the_greedy_text_is_that_of_mlx_lm(
    models: Models,
    prompts: list[list[int]],
    texts: list[list[int]],
    policy: Callable[[], DraftPolicy],
    drafters: dict[str, Any],
) -> None:
    shared, store = policy(), AnswerStore()
    for prompt, text in zip(prompts, texts, strict=True):
        for _ in range(2):  # the second time past answers hold all of it
            generation = models.generation(prompt, shared, store=store, **drafters)
            assert text_of(generation) == prompt + text
            if generation.lookup:
                generation.lookup.close()


@pytest.mark.parametrize(
    "name", ["llama", "gemma3_text", "qwen3_next", "llama4_text", "deepseek_v41", "gemma3n"]
)
def test_it_is_on_every_kind_of_cache(name: str) -> None:
    pair = Models(make(name), noisy(name), 256)
    prompt = [n % 200 + 4 for n in range(0, 500, 7)]
    expected = prompt + pair.alone(prompt, 60)
    for script in (by_model(3), SCRIPTS["everything"]):
        policy = Scripted(*script)
        assert text_of(pair.generation(prompt, policy, tokens=60, readers=pair.readers(24))) == expected
        assert any(choice.length for choice, _ in policy.taken)


@pytest.mark.parametrize("tokens", [1, 2, 3, 8])
@ALL_SCRIPTS
def test_no_more_tokens_come_than_were_asked_for(script: list[Choice], tokens: int) -> None:
    for rule in (Greedy(), Speculative(Shape(1.0))):
        generation = toy_generation(rule, script, tokens=tokens, prompt=[0, 1, 2, 0, 1, 2])
        assert len(list(generation.generate())) == tokens
        assert generation.left == 0


def test_none_come_where_none_are_asked_for() -> None:
    generation = toy_generation(Greedy(), by_model(3), tokens=0)
    assert list(generation.generate()) == []
    assert generation.target.position == 2, "the prompt is read as always"


@pytest.mark.parametrize("start", [0, 40])
def test_it_is_where_layers_are_quantized_in_the_middle_of_it(
    models: Models, prompts: list[list[int]], start: int
) -> None:
    for prompt in prompts:
        flags = {"kv_bits": 4, "kv_group_size": 64, "quantized_kv_start": start}
        steps = generate_step(mx.array(prompt), models.target, max_tokens=60, **flags)
        expected = prompt + [int(token) for token, _ in steps]
        assert start < len(expected)
        for script in (by_model(5), SCRIPTS["everything"]):
            readers = models.readers()
            readers[0].quantization = Quantization(4, 64, start)
            assert (
                text_of(models.generation(prompt, Scripted(*script), tokens=60, readers=readers)) == expected
            )
            assert {type(layer) for layer in readers[0].cache.layers} == {QuantizedKVCache}


@pytest.mark.parametrize(
    ("start", "rounds"),
    [
        (10, [(3, 3), (7, 3), (11, 3), (15, 1)]),  # a round ends there
        (9, [(3, 3), (8, 0), (10, 3), (14, 2)]),  # of three alone the middle one is timed
        (0, [(3, 3), (7, 3), (11, 3), (15, 1)]),
    ],
)
def test_a_round_that_would_read_beyond_the_place_of_quantizing_is_not_drafted(
    start: int, rounds: list[tuple[int, int]]
) -> None:
    generation = toy_generation(Greedy(), by_model(3), tokens=13, prompt=[0, 1, 2], target=CYCLE, draft=CYCLE)
    generation.target.quantization = Quantization(8, 64, start)
    text_of(generation)
    policy: Any = generation.policy
    assert [(depth, choice.length) for choice, depth in policy.taken] == rounds


# --- what is told of each token -----------------------------------------------------------------------------


def counted(generation: Generation) -> AcceptanceCount:
    count = AcceptanceCount(None, generation.rule.name)
    for token in generation.generate():
        count.observe(token.drafter, token.proposed, drafted=token.source != ALONE)
    return count


def test_each_token_says_where_it_comes_from() -> None:
    generation = toy_generation(
        Greedy(), [*by_model(2), Choice(ALONE)], tokens=6, prompt=[0], target=CYCLE, draft=CYCLE
    )
    told = [(token.token, token.source, token.drafter, token.proposed) for token in generation.generate()]
    model, after, alone = (MODEL_DRAFTER, MODEL_DRAFTER, 2), (ALONE, MODEL_DRAFTER, 2), (ALONE, ALONE, 0)
    origins = [model, model, after, alone, alone, (MODEL_DRAFTER, MODEL_DRAFTER, 1)]
    assert [told[n][1:] for n in range(4)] == origins[:4]
    assert [token for token, *_ in told] == [1, 2, 3, 0, 1, 2]


@ALL_SCRIPTS
def test_the_count_of_the_tokens_is_what_the_policy_was_told_of_the_rounds(script: list[Choice]) -> None:
    mx.random.seed(2)
    generation = toy_generation(Speculative(Shape(1.0)), script, tokens=200)
    count = counted(generation)
    policy: Any = generation.policy
    rounds = [choice for choice, _ in policy.taken if choice.length]
    assert count.rounds == len(rounds)
    assert count.proposed == sum(choice.length for choice in rounds)
    assert count.tokens == 200
    after_drafts = 200 - count.accepted - count.alone
    assert count.rounds - after_drafts in {0, 1}, "the last round may have no room for it"
    for drafter, tally in count.drafters.items():
        assert tally.rounds == sum(choice.source == drafter for choice in rounds)


@pytest.mark.parametrize("rule", [Greedy(), Seeded(Shape(0.8), 4)], ids=["greedy", "seeded"])
def test_the_log_probabilities_are_the_target_models(
    models: Models, prompts: list[list[int]], rule: Rule
) -> None:
    generation = models.generation(prompts[0], Scripted(*SCRIPTS["everything"]), rule=rule, tokens=40)
    tokens = list(generation.generate())
    rows = models.target(mx.array([generation.text]))[0, len(prompts[0]) - 1 : -1]
    rows = rows.astype(mx.float32)
    expected = rows - mx.logsumexp(rows, axis=-1, keepdims=True)
    # The logits are in bfloat16, whose last bit depends on the shape of a pass.
    assert mx.allclose(mx.stack([token.logprobs() for token in tokens]), expected, atol=0.15)
    assert [token.token for token in tokens] == generation.text[len(prompts[0]) :]


def judged(
    script: Sequence[Choice], *, tokens: int, prompt: Sequence[int] = (0, 1, 2, 3, 0, 1, 2, 3)
) -> list[Any]:
    generation = toy_generation(Greedy(), script, tokens=tokens, prompt=prompt, target=CYCLE, draft=ASTRAY)
    text_of(generation)
    policy: Any = generation.policy
    return list(policy.judgements)


def test_the_policy_is_told_how_much_of_a_draft_was_kept() -> None:
    lookup, model = judged([*by_lookup(3), *by_model(4)], tokens=8)[:2]
    assert lookup == (LOOKUP_DRAFTER, 4, 3, 3)
    assert model == (MODEL_DRAFTER, 8, 4, 3)


def test_lookups_are_judged_also_where_they_were_not_verified() -> None:
    assert judged([Choice(ALONE)], tokens=3) == [(LOOKUP_DRAFTER, length, 1, 1) for length in (4, 5, 6)]
    prompt = [0, 1, 2, 0, 0, 1, 2]  # what followed there was something else
    assert judged([Choice(ALONE)], tokens=1, prompt=prompt) == [(LOOKUP_DRAFTER, 3, 1, 0)]
    model, lookup = judged(by_model(4), tokens=5)[:2]
    assert model == (MODEL_DRAFTER, 4, 4, 3)
    assert lookup == (LOOKUP_DRAFTER, 4, 4, 4), "by all tokens that came"


def test_what_it_takes_to_decide_is_a_part_of_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: list[float] = [0.0]
    told: list[tuple[str, float]] = []

    class Slow(Scripted):
        def choose(self, now: Situation) -> Choice:
            clock[0] += 1.0
            return super().choose(now)

        def took(self, choice: Choice, depth: int, seconds: float) -> None:
            told.append((choice.source, seconds))

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    generation = toy_generation(Greedy(), tokens=9, prompt=[0, 1, 2], target=CYCLE, draft=CYCLE)
    generation.policy = Slow(*by_model(3), Choice(ALONE), Choice(ALONE))
    assert len(list(generation.generate())) == 9
    assert {seconds for source, seconds in told if source in {ALONE, MODEL_DRAFTER}} == {1.0}
    assert MODEL_DRAFTER in dict(told)
