"""What the first rank does with the target model's caches, the others do too: here without a network."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import pytest

from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.caches.sequence import ModelCaches, SequenceCache
from draftd.engine.generation.reader import Reader
from draftd.engine.group import follow, lead
from draftd.engine.group.follow import Follower
from draftd.engine.group.lead import Leader, MirroredCaches
from draftd.engine.group.steps import NUMBERS, Step, taken_apart
from draftd.engine.prompt_cache import TruePromptCache
from tests.engine.architectures.models import make

VOCABULARY = 64


class Pair:
    """Two ranks in one process, each with the whole model: the second does what the first has sent."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch, **sizes: int) -> None:
        self.model = make(name, **sizes)
        self.follower = Follower(self.model)
        self.woken = 0
        self.slept = 0
        self.leader = Leader(self._wake)
        self.caches = MirroredCaches(self.model, self.leader)
        self._tokens = mx.array([[0]])
        self._behind: list[tuple[Step, tuple[int, ...]]] = []
        monkeypatch.setattr(lead, "tell", self._tell)
        monkeypatch.setattr(lead, "share_tokens", self._keep)
        monkeypatch.setattr(follow, "share_tokens", lambda _: self._tokens)

    def _wake(self) -> None:
        self.woken += 1

    def _tell(self, numbers: list[int]) -> None:
        *others, last = taken_apart(numbers)
        for step, given in others:
            self.follower.do(step, *given)
        if last[0] is Step.SLEEP:
            self.slept += 1
        else:
            self._behind = [last]

    def _keep(self, tokens: mx.array) -> mx.array:
        self._tokens = tokens
        for step, given in self._behind:
            self.follower.do(step, *given)
        return tokens

    def number(self, cache: SequenceCache) -> int:
        found = lead.number_of(cache.layers)
        assert found is not None
        return found.number

    def theirs(self, cache: SequenceCache) -> SequenceCache:
        return self.follower._caches[self.number(cache)]

    def settle(self, cache: SequenceCache) -> None:
        """Send what was noted, with the reading of a token."""
        cache.read(self.model, mx.array([[1]]))
        cache.advance(1)

    def assert_same(self, cache: SequenceCache) -> None:
        """Both read on to the same logits from here."""
        mine = self.model(mx.array([[5, 6, 7]]), cache=copy.deepcopy(cache.layers))
        theirs = self.model(mx.array([[5, 6, 7]]), cache=copy.deepcopy(self.theirs(cache).layers))
        assert mx.array_equal(mine, theirs)
        assert self.theirs(cache).position == cache.position


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pair]:
    return lambda name, **sizes: Pair(name, monkeypatch, **sizes)


def some(chance: random.Random, count: int) -> mx.array:
    return mx.array([chance.randrange(1, VOCABULARY) for _ in range(count)])


@pytest.mark.fault(146)
@pytest.mark.parametrize("name", ["qwen2", "gpt_oss", "qwen3_5"])
def test_whatever_is_done_with_caches_the_other_rank_has_the_same(
    pair: Callable[..., Pair], name: str
) -> None:
    two, chance = pair(name), random.Random(3)
    stored = TruePromptCache(4)
    text: list[int] = []
    cache = two.caches.make()
    for number in range(30):
        match chance.randrange(5):
            case 0:  # a prompt
                tokens = some(chance, chance.randrange(1, 6))
                cache.read(two.model, tokens[None], logits=False)
                cache.advance(tokens.size)
                text += tokens.tolist()  # type: ignore[arg-type]
            case 1 | 2:  # a round
                cache.mark()
                tokens = some(chance, chance.randrange(1, 6))
                cache.read(two.model, tokens[None])
                cache.advance(tokens.size)
                reached = cache.rollback(chance.randrange(tokens.size + 1))
                text = [*text, *tokens.tolist()][:reached]  # type: ignore[misc]
            case 3 if text:  # another request begins, with what was read of this one
                stored.insert_cache("m", list(text), cache.copy().layers)
                found, rest = stored.fetch_nearest_cache("m", [*text, 1])
                text = text[: len(text) + 1 - len(rest)]
                cache = two.caches.adopt(found, len(text)) if found else two.caches.make()
            case _:  # or with nothing
                cache, text = (two.caches.make(), []) if chance.random() < 0.2 else (cache, text)
        two.settle(cache)
        text.append(1)
        if number % 3 == 2:  # what has come apart stays so, and to look takes longer than all the steps
            two.assert_same(cache)


def test_what_the_first_rank_forgets_the_others_forget(pair: Callable[..., Pair]) -> None:
    two = pair("qwen2")
    kept = two.caches.make()
    for _ in range(20):
        two.settle(two.caches.make().copy() and kept)
    assert len(two.follower) == 1
    two.assert_same(kept)


def test_layers_are_quantized_at_both(pair: Callable[..., Pair]) -> None:
    two = pair("qwen2", num_attention_heads=2, num_key_value_heads=2)  # as wide as a group of numbers
    cache = two.caches.make()
    reader = Reader(two.model, cache, 4, Quantization(8, 32, 6))
    reader.catch_up(list(range(1, 12)))
    two.settle(cache)
    assert type(cache.layers[0]).__name__ == "QuantizedKVCache"
    assert [type(layer) for layer in two.theirs(cache).layers] == [type(layer) for layer in cache.layers]
    two.assert_same(cache)
    again = two.caches.adopt(copy.deepcopy(cache.layers), cache.position)
    two.settle(again)
    two.assert_same(again)


def test_the_others_sleep_when_nothing_is_asked_for_and_are_woken_for_the_next_step(
    pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = pair("qwen2")
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    cache = two.caches.make()
    two.settle(cache)
    two.leader.idle()
    assert not two.slept
    clock[0] += lead.SLEEP_AFTER_S
    two.leader.idle()
    two.leader.idle()
    assert (two.slept, two.woken) == (1, 0)
    two.settle(cache)
    two.settle(cache)
    assert (two.slept, two.woken) == (1, 1)


def test_a_pass_that_fails_at_one_rank_ends_the_process(
    pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []

    def leave(code: int, reason: str) -> None:
        ended.append(code)
        raise SystemExit(reason)

    monkeypatch.setattr(lead, "leave", leave)
    two = pair("qwen2")

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(SystemExit, match="out of memory"):
        two.caches.make().read(fails, mx.array([[1]]))
    assert ended == [70]


def test_no_two_requests_are_read_in_one_pass(pair: Callable[..., Pair]) -> None:
    assert pair("qwen2").caches.why_alone
    assert not ModelCaches.why_alone


def messages() -> Iterator[list[int]]:
    chance = random.Random(1)
    for length in (0, 1, 5, 40):
        numbers: list[int] = []
        for _ in range(length):
            step = chance.choice(list(Step))
            numbers += [step, *(chance.randrange(100) for _ in range(NUMBERS[step]))]
        yield numbers


def test_steps_are_taken_apart_as_they_were_put_together() -> None:
    for numbers in messages():
        again = [number for step, given in taken_apart(numbers) for number in (step, *given)]
        assert again == numbers
    for wrong in ([99], [Step.READ, 1]):
        with pytest.raises(ValueError, match=r"99|READ"):
            list(taken_apart(wrong))
