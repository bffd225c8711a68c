"""The loop: the text is that of the target model alone, and whatever ends it leaves both caches in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import QuantizedKVCache

from draftd.engine.generation.acceptance import AcceptanceCount
from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.caches.sequence import ModelCaches
from draftd.engine.generation.choices import ALONE, MAX_LATE, REVIEW, Choice
from draftd.engine.generation.drafters.lookup import AnswerStore, LookupDrafter
from draftd.engine.generation.drafters.model import ModelDrafter
from draftd.engine.generation.loop import Generation
from draftd.engine.generation.policy import DraftPolicy
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.rounds import LOOK_BACK
from draftd.engine.generation.sampling import Greedy, Logits, Rule, Seeded, Shape, Speculative
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER
from tests.engine.architectures.models import make, noisy
from tests.engine.generation.toys import (
    SCRIPTS,
    Scripted,
    Toy,
    by_lookup,
    by_model,
    text_of,
    toy_generation,
)
from tests.engine.served import turn

QUESTIONS = ["What is a draft model?", "Write a Python function that adds two numbers.", "Tell me a story."]
TOKENS = 100
ALL_SCRIPTS = pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)


@dataclass
class Models:
    """A target and a draft model, and what is known of how their caches are made."""

    target: Any
    draft: Any
    vocabulary: int
    caches: dict[str, ModelCaches] = field(init=False)

    def __post_init__(self) -> None:
        self.caches = {"target": ModelCaches(self.target), "draft": ModelCaches(self.draft)}

    def readers(self, step: int = 512) -> tuple[Reader, Reader]:
        models = {"target": self.target, "draft": self.draft}
        made = [Reader(models[name], self.caches[name].make(), step) for name in models]
        return made[0], made[1]

    def generation(
        self,
        prompt: Sequence[int],
        policy: DraftPolicy,
        *,
        tokens: int = TOKENS,
        rule: Rule | None = None,
        readers: tuple[Reader, Reader] | None = None,
        model: bool = True,
        lookup: bool = True,
        store: AnswerStore | None = None,
        check: Callable[[int], None] = lambda _: None,
    ) -> Generation:
        target, draft = readers or self.readers()
        logits, rule = Logits(self.vocabulary), rule or Greedy()
        return Generation(
            text=list(prompt),
            max_tokens=tokens,
            target=target,
            rule=rule,
            logits=logits,
            policy=policy,
            draft=ModelDrafter(draft, logits, rule) if model else None,
            max_draft=8 if model else 0,
            lookup=LookupDrafter(prompt, store or AnswerStore()) if lookup else None,
            check=check,
        )

    def alone(self, prompt: Sequence[int], tokens: int = TOKENS) -> list[int]:
        """Return what mlx_lm generates without any draft."""
        steps = generate_step(mx.array(list(prompt)), self.target, max_tokens=tokens)
        return [int(token) for token, _ in steps]


@pytest.fixture(scope="module")
def demo(pair: tuple[Path, Path]) -> tuple[Models, list[list[int]]]:
    """The demo pair, and prompts for it."""
    target, tokenizer = mlx_lm.load(str(pair[0]))[:2]
    draft = mlx_lm.load(str(pair[1]))[0]
    return Models(target, draft, target.args.vocab_size), [tokenizer.encode(turn(q)) for q in QUESTIONS]


@pytest.fixture(scope="module")
def models(demo: tuple[Models, list[list[int]]]) -> Models:
    return demo[0]


@pytest.fixture(scope="module")
def prompts(demo: tuple[Models, list[list[int]]]) -> list[list[int]]:
    return demo[1]


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


CYCLE = [[0.1, 0.6, 0.2, 0.1], [0.1, 0.2, 0.6, 0.1], [0.1, 0.2, 0.1, 0.6], [0.6, 0.1, 0.2, 0.1]]
ASTRAY = [CYCLE[0], CYCLE[1], [0.6, 0.1, 0.2, 0.1], CYCLE[3]]  # after 2 it would write 0


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


# --- when models read ---------------------------------------------------------------------------------------


def toys(generation: Generation) -> tuple[Toy, Toy]:
    readers: list[Any] = [generation.target, generation.draft and generation.draft.reader]
    return readers[0]._model, readers[1]._model


def test_alone_the_next_token_is_being_computed_while_one_is_given_out() -> None:
    generation = toy_generation(Greedy(), tokens=3, prompt=[0, 1])
    target, draft = toys(generation)
    passes = [list(target.passes) for _ in generation.generate()]
    assert passes == [[1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]], "and nothing after the last one"
    assert draft.passes == []


def test_a_round_is_one_pass_of_the_target_model() -> None:
    generation = toy_generation(Greedy(), by_model(4), tokens=11, prompt=[0, 1], target=CYCLE, draft=ASTRAY)
    target, draft = toys(generation)
    text_of(generation)
    assert target.passes[:3] == [1, 5, 5], "what is unread, and the draft"
    assert draft.passes[:4] == [2, 1, 1, 1], "the prompt is short enough to be read in the round"


def test_what_was_computed_ahead_is_given_out_before_a_round() -> None:
    generation = toy_generation(Greedy(), [Choice(ALONE), *by_model(3)], tokens=9, prompt=[0], target=CYCLE)
    target, _ = toys(generation)
    sources = [token.drafter for token in generation.generate()]
    assert sources[:4] == [ALONE, ALONE, ALONE, ALONE]
    assert target.passes[:2] == [1, 1]
    policy: Any = generation.policy
    assert {choice for choice, _ in policy.taken if not choice.length} == {Choice(ALONE)}


@pytest.mark.parametrize("unread", [MAX_LATE, MAX_LATE + 1])
def test_a_draft_model_that_is_far_behind_reads_on_before_the_round_is_timed(unread: int) -> None:
    generation = toy_generation(Greedy(), by_model(1), tokens=2, prompt=[n % 4 for n in range(unread)])
    _, draft = toys(generation)
    text_of(generation)
    assert draft.passes[:2] == ([unread] if unread <= MAX_LATE else [unread - 1, 1])


def test_after_a_rest_the_draft_model_proposes_what_it_always_would(
    models: Models, prompts: list[list[int]]
) -> None:
    def of_rounds(*script: Choice) -> list[tuple[int, int]]:
        policy = Scripted(*script)
        text_of(models.generation(prompts[0], policy, tokens=90, lookup=False))
        position, kept = len(prompts[0]), iter(policy.judgements)
        by_position = []
        for choice, depth in policy.taken:
            assert depth >= position
            if choice.length:
                by_position.append((depth, next(kept)[3]))
        return by_position

    always = dict(of_rounds(*by_model(1)))
    rested = of_rounds(*[Choice(ALONE)] * 20, *by_model(*[1] * 10))
    same = [(depth, kept) for depth, kept in rested if depth in always]
    assert len(same) >= 8
    assert [always[depth] for depth, _ in same] == [kept for _, kept in same]


def test_the_policy_is_told_what_the_draft_model_read_outside_of_rounds(models: Models) -> None:
    policy = Scripted(*[Choice(ALONE)] * 20, Choice(REVIEW), *by_model(1, 1))
    text_of(models.generation(list(range(1, 41)), policy, tokens=50, lookup=False))
    assert policy.read[0] == 60
    assert all(length > MAX_LATE for length in policy.read)
    assert len(policy.read) == 2


# --- reviews ------------------------------------------------------------------------------------------------


def reviewed(script: Sequence[Choice], **others: Any) -> list[float]:
    generation = toy_generation(
        Greedy(), script, tokens=60, prompt=[0, 1, 2, 3, 0, 1, 2], target=CYCLE, draft=ASTRAY, **others
    )
    policy: Any = generation.policy
    tokens = generation.generate()
    while not policy.shares and next(tokens, None):
        pass
    tokens.close()
    assert generation.draft
    assert generation.draft.reader.position <= len(generation.text)
    return list(policy.shares)


REVIEWED = Choice(REVIEW)


def test_a_review_tells_what_the_draft_model_would_have_proposed_for_what_came_alone() -> None:
    # The answer is 3, 0, 1, 2, 3, 0: the draft model is wrong about each 3.
    assert reviewed([Choice(ALONE)] * 6 + [REVIEWED]) == [False, True, True, True, False, True]


def test_no_more_tokens_are_reviewed_than_a_few() -> None:
    shares = reviewed([Choice(ALONE)] * 50 + [REVIEWED])
    assert len(shares) == LOOK_BACK
    assert shares == [True, True, False, True] * (LOOK_BACK // 4)


def test_tokens_of_a_lookup_in_between_are_not_taken_for_tokens_that_came_alone() -> None:
    script = [Choice(ALONE)] * 6 + by_lookup(2, 2) + [Choice(ALONE)] * 2 + [REVIEWED]
    # 3 0 1 2 3 0 1 alone (one was computed ahead), then 2 3 0 of a lookup, then 1 2.
    assert reviewed(script) == [True, True]


def test_a_review_of_sampled_tokens_is_how_likely_drafts_were_to_be_kept() -> None:
    mx.random.seed(1)
    generation = toy_generation(
        Speculative(Shape(1.0)),
        [Choice(ALONE)] * 30 + [REVIEWED],
        tokens=1200,
        prompt=[0],
        target=CYCLE,
        draft=ASTRAY,
    )
    text = text_of(generation)
    policy: Any = generation.policy
    common = [sum(map(min, p, q)) for p, q in zip(CYCLE, ASTRAY, strict=True)]
    expected = sum(common[last] for last in text) / len(text)
    assert len(policy.shares) > 1000
    assert sum(policy.shares) / len(policy.shares) == pytest.approx(expected, abs=0.05)


def test_what_the_draft_model_has_read_it_does_not_review() -> None:
    assert reviewed([*by_model(2), REVIEWED]) == []


# --- whatever ends it ---------------------------------------------------------------------------------------


def in_order(models: Models, generation: Generation) -> None:
    """Go on with the same caches and more text, as the next turn of a conversation does."""
    assert generation.draft
    readers = generation.target, generation.draft.reader
    for reader in readers:
        assert reader.position <= len(generation.text)
    prompt = [*generation.text, 11, 12]
    policy = Scripted(*by_model(3), Choice(ALONE))
    onward = models.generation(prompt, policy, tokens=8, readers=readers, lookup=False)
    assert text_of(onward) == prompt + models.alone(prompt, 8)


@pytest.fixture(scope="module")
def small() -> Models:
    return Models(make("llama"), noisy("llama"), 256)


@ALL_SCRIPTS
def test_closed_after_any_token_it_leaves_both_caches_in_order(small: Models, script: list[Choice]) -> None:
    prompt = [5, 6, 7, 8, 5, 6, 7, 8, 5, 6]
    for place in range(1, 17):
        generation = small.generation(prompt, Scripted(*script), tokens=40)
        tokens = generation.generate()
        assert len(list(islice(tokens, place))) == place
        tokens.close()
        assert len(generation.text) == len(prompt) + place
        in_order(small, generation)


@pytest.mark.parametrize("name", ["gemma3_text", "qwen3_next"])
def test_closed_inside_a_round_it_leaves_windows_and_states_in_order(name: str) -> None:
    pair = Models(make(name), noisy(name), 256)
    prompt = [n % 200 + 4 for n in range(0, 500, 7)]
    for place in (1, 2, 3, 4, 9):
        generation = pair.generation(prompt, Scripted(*by_model(5)), tokens=40, readers=pair.readers(24))
        tokens = generation.generate()
        assert len(list(islice(tokens, place))) == place
        tokens.close()
        in_order(pair, generation)


class GoneError(Exception):
    pass


def leaving_after(calls: int) -> Callable[[int], None]:
    left = iter(range(calls))

    def check(read: int) -> None:
        assert read > 0
        if next(left, None) is None:
            raise GoneError

    return check


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_check_that_raises_ends_the_reading_of_the_prompt(small: Models, calls: int) -> None:
    prompt = list(range(5, 60))
    readers = small.readers(step=10)
    generation = small.generation(prompt, DraftPolicy(), readers=readers, check=leaving_after(calls))
    with pytest.raises(GoneError):
        text_of(generation)
    assert readers[0].position == 10 * (calls + 1), "within a step"
    in_order(small, generation)


@pytest.mark.parametrize(
    "script", [by_model(2), [Choice(ALONE)] * 3 + [REVIEWED]], ids=["a draft", "a review"]
)
def test_it_ends_the_reading_of_the_draft_model_too(small: Models, script: list[Choice]) -> None:
    prompt = list(range(5, 60))
    readers = small.readers(step=10)
    of_target = 6  # steps in which the target model reads the prompt
    generation = small.generation(
        prompt, Scripted(*script), readers=readers, lookup=False, check=leaving_after(of_target + 1)
    )
    with pytest.raises(GoneError):
        text_of(generation)
    assert readers[1].position == 20
    in_order(small, generation)


def test_an_error_of_the_draft_model_leaves_the_target_model_in_order(
    small: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = small.generation(list(range(5, 20)), Scripted(*by_model(3)), lookup=False)
    tokens = generation.generate()
    next(tokens)
    assert generation.draft
    monkeypatch.setattr(generation.draft.reader, "_model", None)
    with pytest.raises(TypeError):
        list(tokens)
    monkeypatch.undo()
    in_order(small, generation)
