"""The paper's rule on the demo pair: what comes out of the loop, and what it leaves in the caches."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from operator import mul
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache

from draftd.engine.generation.loop import generate
from draftd.engine.generation.policy import DraftPolicy, FixedLength, Look
from draftd.engine.generation.sampling import Distribution, Greedy
from draftd.protocol import PAPER_RULE, PLAIN_RULE
from tests.engine.chance import chi_square, most_by_chance
from tests.engine.served import Engine, turn

pytestmark = pytest.mark.real

FLAT = Distribution(temperature=1.2, min_p=0.05)
QUESTION = "What"  # to which the models have many answers, and not the same
RUNS = 200


class Pair:
    """The pair in this process."""

    def __init__(self, folders: tuple[Path, Path]) -> None:
        self.target, self.tokenizer = mlx_lm.load(str(folders[0]))
        self.draft, _ = mlx_lm.load(str(folders[1]))

    def encode(self, question: str) -> mx.array:
        return mx.array(self.tokenizer.encode(turn(question)))

    def steps(
        self,
        prompt: mx.array,
        policy: DraftPolicy,
        tokens: int,
        by: Distribution | Greedy = FLAT,
        **others: Any,
    ) -> Any:
        stream = mx.default_stream(mx.default_device())
        return generate(by, policy, prompt, self.target, self.draft, stream, max_tokens=tokens, **others)


class Changing(FixedLength):
    """Goes through everything that a policy may decide, over and over."""

    def __init__(self) -> None:
        super().__init__(3)
        self.turn = 0
        self.shares: list[float] = []

    def undrafted_tokens(self) -> int:
        self.turn += 1
        return (0, 0, 3, 0, 1)[self.turn % 5]

    def look(self) -> Look:
        return "after" if self.turn % 2 else "before"

    def tokens_to_draft(self, confidences: Sequence[float]) -> int:
        return 2 if len(confidences) < 4 else 0

    def tokens_to_verify(self, confidences: Sequence[float]) -> int:
        return (len(confidences), 1, 0)[self.turn % 3]

    def observe_undrafted(self, shares: Sequence[float]) -> None:
        self.shares += shares


def shares(model: Any, prompt: mx.array) -> Any:
    """Return the distribution of the token after the prompt, by one model alone."""
    logits = model(prompt[None])[0, -1:]
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return numbers(mx.softmax(FLAT.logits(logprobs)[0]))


def numbers(array: mx.array) -> Any:
    return array.tolist()


@pytest.fixture(scope="module")
def models(pair: tuple[Path, Path]) -> Pair:
    return Pair(pair)


def binned(drawn: list[int], shares: list[float]) -> tuple[list[int], list[float]]:
    """Return tokens and shares with all that is expected fewer than 5 times under one number, the last."""
    common = [token for token, share in enumerate(shares) if share * len(drawn) >= 5]
    places = {token: place for place, token in enumerate(common)}
    kept = [shares[token] for token in common]
    possible = {token for token in drawn if shares[token] > 0}
    assert possible == set(drawn), "something was drawn that had been filtered out"
    return [places.get(token, len(common)) for token in drawn], [*kept, max(0.0, 1 - sum(kept))]


def fits(drawn: list[int], shares: list[float]) -> bool:
    places, expected = binned(drawn, shares)
    return chi_square(places, expected) < most_by_chance(sum(share > 0 for share in expected) - 1)


@pytest.fixture(scope="module")
def runs(models: Pair) -> list[list[tuple[int, bool]]]:
    """Return the first two tokens of an answer under many seeds, and whether they came from the draft."""
    found = []
    for seed in range(RUNS):
        mx.random.seed(seed)
        steps = models.steps(models.encode(QUESTION), FixedLength(2), tokens=2)
        found.append([(token, from_draft) for token, _, from_draft in steps])
    return found


def test_the_first_tokens_are_distributed_as_the_target_models_own(
    models: Pair, runs: list[list[tuple[int, bool]]]
) -> None:
    prompt = models.encode(QUESTION)
    texts = [[token for token, _ in run] for run in runs]
    assert fits([first for first, _ in texts], shares(models.target, prompt))
    first, often = Counter(first for first, _ in texts).most_common(1)[0]
    assert often >= 12
    after = shares(models.target, mx.concatenate([prompt, mx.array([first])]))
    assert fits([second for token, second in texts if token == first], after)


def test_as_many_are_kept_as_the_models_have_in_common(
    models: Pair, runs: list[list[tuple[int, bool]]]
) -> None:
    p, q = (shares(model, models.encode(QUESTION)) for model in (models.target, models.draft))
    common, by_plain_rule = sum(map(min, p, q)), sum(map(mul, p, q))
    within = 4 * math.sqrt(0.25 / RUNS)
    assert by_plain_rule + within < common < 1 - within, "a question that cannot tell the rules apart"
    assert sum(from_draft for (_, from_draft), _ in runs) / RUNS == pytest.approx(common, abs=within)


@pytest.mark.parametrize("policy", [functools.partial(FixedLength, 3), Changing], ids=["fixed", "changing"])
def test_whenever_it_is_left_the_caches_hold_the_text_and_no_more(
    models: Pair, policy: Callable[[], DraftPolicy]
) -> None:
    prompt = models.encode("What is draftd?")
    seen = Counter[bool]()
    for stop in range(1, 10):
        mx.random.seed(stop)
        layers = make_prompt_cache(models.target), make_prompt_cache(models.draft)
        steps = models.steps(prompt, policy(), tokens=20, prompt_cache=[*layers[0], *layers[1]])
        run = [next(steps) for _ in range(stop)]
        steps.close()
        seen[run[-1][2]] += 1
        text = [*numbers(prompt), *(token for token, _, _ in run)]
        for model, cache in zip((models.target, models.draft), layers, strict=True):
            (length,) = {layer.offset for layer in cache}
            # The target model lacks nothing but a token of its own, the draft model one token more at most.
            assert len(text) - 2 <= length <= len(text)
            rest = mx.array([[*text[length:], 5]])
            expected = model(mx.array([[*text, 5]]))[0, -1]
            assert mx.allclose(model(rest, cache=cache)[0, -1], expected, atol=0.3), (stop, length)
    assert min(seen[True], seen[False]) > 0, "never left inside a round, or never at its end"


@pytest.mark.parametrize("policy", [functools.partial(FixedLength, 3), Changing], ids=["fixed", "changing"])
@pytest.mark.parametrize("tokens", [1, 2, 3, 8])
def test_no_more_tokens_come_than_were_asked_for(
    models: Pair, tokens: int, policy: Callable[[], DraftPolicy]
) -> None:
    assert len(list(models.steps(models.encode("Hello!"), policy(), tokens=tokens))) == tokens


def test_whatever_the_policy_decides_the_greedy_text_is_that_of_the_target_model(models: Pair) -> None:
    prompt = models.encode("Tell me a story")
    alone = [token for token, _ in generate_step(prompt, models.target, max_tokens=120)]
    policy = Changing()
    assert [token for token, _, _ in models.steps(prompt, policy, tokens=120, by=Greedy())] == alone
    assert set(policy.shares) == {0, 1}


def test_whatever_the_policy_decides_tokens_are_distributed_as_the_target_models_own(models: Pair) -> None:
    prompt = models.encode(QUESTION)
    texts = []
    for seed in range(RUNS):
        mx.random.seed(seed)
        policy = Changing()
        policy.turn = seed
        texts.append([token for token, _, _ in models.steps(prompt, policy, tokens=2)])
    assert fits([first for first, _ in texts], shares(models.target, prompt))
    first, often = Counter(first for first, _ in texts).most_common(1)[0]
    assert often >= 12
    after = shares(models.target, mx.concatenate([prompt, mx.array([first])]))
    assert fits([second for token, second in texts if token == first], after)


def test_alone_it_tells_how_much_a_draft_has_in_common_with_the_target_model(models: Pair) -> None:
    class Alone(Changing):
        def undrafted_tokens(self) -> int:
            return 1

    prompt = models.encode(QUESTION)
    p, q = (shares(model, prompt) for model in (models.target, models.draft))
    policy = Alone()
    for seed in range(RUNS):
        mx.random.seed(seed)
        list(models.steps(prompt, policy, tokens=1))
    within = 4 * math.sqrt(0.25 / RUNS)
    assert sum(policy.shares) / RUNS == pytest.approx(sum(map(min, p, q)), abs=within)


def test_the_same_seed_gives_the_same_text_by_the_papers_rule(drafted: Engine) -> None:
    def ask(seed: int) -> str:
        body = {"temperature": 3.0, "seed": seed, "max_tokens": 30, "num_draft_tokens": 4}
        text, _ = drafted.generation(lambda: drafted.complete(turn("Tell me about the sea"), **body))
        assert drafted.records("generation")[-1]["rule"] == PAPER_RULE
        return str(text)

    assert len({ask(1) for _ in range(3)}) == 1
    assert len({ask(seed) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.02}, PAPER_RULE),
        ({"temperature": 0}, PLAIN_RULE),
        ({"temperature": 0.7, "repetition_penalty": 1.1}, PLAIN_RULE),
        ({"temperature": 0.7, "logit_bias": {"7": 1.0}}, PLAIN_RULE),
        ({"temperature": 0.7, "xtc_probability": 0.5}, PLAIN_RULE),
        ({"temperature": 0.7, "num_draft_tokens": 0}, PLAIN_RULE),
    ],
)
def test_the_record_says_which_rule_was_used(drafted: Engine, body: dict[str, Any], rule: str) -> None:
    drafted.generation(lambda: drafted.complete(turn("Hello!"), max_tokens=8, **body))
    assert drafted.records("generation")[-1]["rule"] == rule
