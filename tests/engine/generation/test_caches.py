"""Caches that are taken back: what a token may see afterwards, and what is kept for it."""

import copy
import random
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx_lm.models.cache import (
    ArraysCache,
    BatchRotatingKVCache,
    ChunkedKVCache,
    ConcatenateKVCache,
    KVCache,
    LRUPromptCache,
    RotatingKVCache,
    make_prompt_cache,
)

from draftd.engine.generation.caches.chunked import RewindableChunkedKVCache
from draftd.engine.generation.caches.layers import leaves
from draftd.engine.generation.caches.sequence import TRIED, ModelCaches, SequenceCache
from draftd.engine.generation.caches.sliding import MARGIN, SlidingKVCache
from tests.engine.architectures.drafting import drafted_text, plain_text, prompt_of, scripted
from tests.engine.architectures.models import make

WINDOW = 8
Seen = list[set[int]]  # the positions that each token of a pass may see


def rows(start: int, count: int) -> mx.array:
    """Keys or values, which are the positions of their tokens."""
    return mx.arange(start, start + count, dtype=mx.float32).reshape(1, 1, count, 1)


def read(cache: Any, count: int, window: int | None = None) -> Seen:
    """Let a cache read tokens, and return what they may see, by its mask and what it returns."""
    start = cache.offset
    mask = cache.make_mask(count, window_size=window)
    keys, values = cache.update_and_fetch(rows(start, count), rows(start, count))
    assert mx.array_equal(keys, values)
    assert mx.array_equal(keys, cache.keys_and_values()[0])
    positions: Any = keys[0, 0, :, 0].tolist()
    if mask is None:
        visible: Any = [[True] * len(positions)] * count
    elif isinstance(mask, str):
        visible = [[j <= i + len(positions) - count for j in range(len(positions))] for i in range(count)]
    else:
        visible = mask.reshape(count, -1).tolist()
    return [{int(p) for p, shown in zip(positions, row, strict=True) if shown} for row in visible]


def alone(cache: Any, count: int, window: int | None = None) -> Seen:
    """What tokens may see that are read one by one."""
    return [read(cache, 1, window)[0] for _ in range(count)]


@pytest.mark.parametrize("keep", [0, 3])
@pytest.mark.parametrize("seed", range(8))
def test_in_rounds_a_token_sees_what_mlx_lm_shows_to_it_alone(keep: int, seed: int) -> None:
    rng = random.Random(seed)
    truth = alone(RotatingKVCache(WINDOW, keep), 700)
    cache = SlidingKVCache(WINDOW, keep)
    while cache.offset < 600:
        cache.mark()
        start, read_since = cache.offset, 0
        for width in rng.choices(range(1, 12), k=rng.randint(1, 3)):
            assert read(cache, width) == truth[cache.offset - width : cache.offset]
            read_since += width
        position = start + rng.randint(0, read_since)
        assert cache.can_rewind(position)
        cache.rewind(position)
        cache.unmark()


@pytest.mark.parametrize("keep", [0, 3])
def test_a_prompt_is_read_as_mlx_lm_reads_it(keep: int) -> None:
    stock, ours = RotatingKVCache(WINDOW, keep), SlidingKVCache(WINDOW, keep)
    for width in (3, 20, 1, 1, 7, 30, 2, 1, 300, 5):
        assert read(stock, width) == read(ours, width)


def test_a_window_that_the_model_asks_for_counts_too() -> None:
    for window in (5, WINDOW, WINDOW + 1):
        truth = alone(RotatingKVCache(WINDOW), 40, window)
        cache = SlidingKVCache(WINDOW)
        assert alone(cache, 20, window) == truth[:20]
        cache.mark()
        assert read(cache, 20, window) == truth[20:]


@pytest.mark.parametrize("widths", [[5], [1] * 5, [20], [20, 3], [20, 1, 1, 1], [1] * 30, [300, 1]])
@pytest.mark.parametrize("keep", [0, 3])
def test_a_cache_of_mlx_lm_is_taken_over_wherever_it_stands(keep: int, widths: list[int]) -> None:
    stock = RotatingKVCache(WINDOW, keep)
    for width in widths:
        read(stock, width)
    ours = SlidingKVCache.of(copy.deepcopy(stock))
    truth = alone(RotatingKVCache(WINDOW, keep), stock.offset) + alone(stock, 20)
    for position in range(ours.offset + 1):
        if ours.can_rewind(position):
            taken_back = copy.deepcopy(ours)
            taken_back.rewind(position)
            assert alone(taken_back, 20) == truth[position : position + 20]
    assert alone(ours, 20) == truth[-20:]


def test_mlx_lm_can_take_a_window_into_a_batch() -> None:
    caches = [SlidingKVCache(WINDOW), SlidingKVCache(WINDOW)]
    for cache, width in zip(caches, (300, 5), strict=True):
        read(cache, width)
        read(cache, 1)
    batch = BatchRotatingKVCache.merge(caches)
    assert batch.keys[:, 0, :, 0].tolist() == [[*range(293, 301)], [0, 0, *range(6)]]


def test_a_window_does_not_grow_with_the_text() -> None:
    cache = SlidingKVCache(WINDOW)
    read(cache, 2000)
    for _ in range(1000):
        cache.mark()
        read(cache, 3)
        cache.rewind(cache.offset - 1)
        cache.unmark()
    rows_kept = cache.nbytes / (2 * 4)
    assert rows_kept <= WINDOW + MARGIN + 2 * cache.step


def test_after_a_round_a_prompt_is_read_as_before_it() -> None:
    """What a round needs is neither kept nor shown any more."""
    stock, ours = RotatingKVCache(WINDOW, keep=3), SlidingKVCache(WINDOW, keep=3)
    chunks = RewindableChunkedKVCache(WINDOW)
    cache = SequenceCache([ours, chunks], 0, rereads=False)
    cache.mark()
    read(ours, 30)
    seen_in_chunks(chunks, 30)
    cache.advance(30)
    cache.rollback(30)
    read(stock, 30)
    for _ in range(20):
        assert read(ours, 100) == read(stock, 100)
        seen_in_chunks(chunks, 100)
    for layer in cache.layers:
        assert layer.nbytes < 2 * 4 * 2 * (ours.step + 100)


@pytest.mark.parametrize("keep", [0, 3])
def test_a_window_goes_back_by_a_margin_and_no_further(keep: int) -> None:
    truth = alone(RotatingKVCache(WINDOW, keep), 2200)
    cache = SlidingKVCache(WINDOW, keep)
    assert cache.is_trimmable()
    for _ in range(8):
        read(cache, 250)
    assert not cache.is_trimmable()
    assert not cache.can_rewind(1000)
    with pytest.raises(ValueError, match="cannot go back from 2000 to 1000"):
        cache.trim(1000)
    assert cache.trim(MARGIN) == MARGIN
    assert alone(cache, 100) == truth[2000 - MARGIN : 2100 - MARGIN]


def seen_in_chunks(cache: Any, count: int) -> Seen:
    """Let a chunked cache read tokens, masked by position as Llama 4 does it."""
    cache.maybe_trim_front()
    start, size = cache.offset, cache.chunk_size
    keys, _ = cache.update_and_fetch(rows(start, count), rows(start, count))
    positions: Any = keys[0, 0, :, 0].tolist()
    assert positions == [*range(cache.start_position, start + count)]
    return [
        {int(p) for p in positions if p <= i and p // size == i // size} for i in range(start, start + count)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_a_token_sees_its_whole_chunk_after_any_rollback(seed: int) -> None:
    rng = random.Random(seed)
    cache = RewindableChunkedKVCache.of(ChunkedKVCache(WINDOW))
    while cache.offset < 600:
        cache.mark()
        start, width = cache.offset, rng.randint(1, 20)
        for i, seen in enumerate(seen_in_chunks(cache, width), start):
            assert seen == {*range(i // WINDOW * WINDOW, i + 1)}
        seen_in_chunks(cache, 1)
        position = start + rng.randint(0, width)
        assert cache.can_rewind(position)
        cache.rewind(position)
        cache.unmark()
    assert cache.offset - cache.start_position <= WINDOW + MARGIN + 40


def test_chunks_say_how_far_they_can_go_back() -> None:
    cache = RewindableChunkedKVCache(WINDOW)
    assert cache.is_trimmable()
    for _ in range(10):
        seen_in_chunks(cache, 50)
    assert not cache.is_trimmable()
    assert cache.can_rewind(500 - MARGIN)
    assert not cache.can_rewind(300)
    with pytest.raises(ValueError, match="cannot go back from 500 to 300"):
        cache.trim(200)
    assert cache.trim(MARGIN) == MARGIN
    assert seen_in_chunks(cache, 1) == [{*range((500 - MARGIN) // WINDOW * WINDOW, 501 - MARGIN)}]


MIXED = ["qwen3_5", "gemma3_text", "llama4", "baichuan_m1", "recurrent_gemma", "longcat_flash_ngram", "rwkv7"]


def passes(model: Any, cache: SequenceCache, tokens: list[int], *widths: int) -> mx.array:
    """Read tokens in passes of these widths; return the logits after the last."""
    assert sum(widths) == len(tokens)
    for width in widths:
        logits: mx.array = model(mx.array([tokens[:width]]), cache=cache.layers)[0, -1]
        cache.advance(width)
        tokens = tokens[width:]
    return logits


def afresh(model: Any, tokens: list[int]) -> mx.array:
    logits: mx.array = model(mx.array([tokens]), cache=make_prompt_cache(model))[0, -1]
    return logits


def close(a: mx.array, b: mx.array) -> bool:
    return bool((mx.abs(a - b).max() < 1e-3 * mx.abs(b).max()).item())


@pytest.mark.parametrize("name", MIXED)
def test_any_part_of_a_round_of_several_passes_can_be_kept(name: str) -> None:
    model = make(name)
    caches = ModelCaches(model)
    prompt, drafts, rest = prompt_of(30, 1), prompt_of(6, 2), prompt_of(3, 3)
    for keep in range(len(drafts) + 1):
        cache = caches.make()
        passes(model, cache, prompt, 30)
        cache.mark()
        passes(model, cache, drafts, 3, 1, 2)
        reached = cache.rollback(keep)
        assert reached == cache.position
        assert cache.can_cut(reached)
        assert reached == 30 + (keep if not caches.rereads else max(p for p in (0, 3, 4, 6) if p <= keep))
        missing = drafts[reached - 30 : keep]
        if missing:
            passes(model, cache, missing, len(missing))
        cache.mark()
        assert close(passes(model, cache, rest, 3), afresh(model, prompt + drafts[:keep] + rest))
        cache.rollback(0)  # the same round once more
        cache.mark()
        assert close(passes(model, cache, rest, 1, 2), afresh(model, prompt + drafts[:keep] + rest))


def test_a_rollback_wants_a_mark_and_no_more_than_was_read() -> None:
    cache = ModelCaches(make("qwen2")).make()
    with pytest.raises(ValueError, match="no 0 tokens"):
        cache.rollback(0)
    cache.mark()
    cache.advance(3)
    with pytest.raises(ValueError, match="no 4 tokens"):
        cache.rollback(4)
    with pytest.raises(ValueError, match="no -1 tokens"):
        cache.rollback(-1)


@pytest.mark.parametrize("name", MIXED)
def test_a_copy_and_the_original_read_on_independently(name: str) -> None:
    model = make(name)
    cache = ModelCaches(model).make()
    prompt, one, other = prompt_of(30, 1), prompt_of(5, 2), prompt_of(5, 3)
    passes(model, cache, prompt, 30)
    cache.mark()
    passes(model, cache, one, 5)
    copied = cache.copy()  # also in the middle of a round, whose calls lead to the model and are not copied
    assert all(leaf.calls is None for leaf in copied._recording())
    cache.rollback(0)
    assert close(passes(model, copied, other, 5), afresh(model, prompt + one + other))
    assert close(passes(model, cache, other, 5), afresh(model, prompt + other))


@pytest.mark.parametrize(
    ("name", "far", "near"), [("qwen2", 5, 5), ("gemma3_text", 5, 400), ("llama4", 5, 400)]
)
def test_layers_can_be_cut_where_they_say_so(name: str, far: int, near: int) -> None:
    model = make(name)
    cache = ModelCaches(model).make()
    prompt, rest = prompt_of(440, 1), prompt_of(5, 2)
    passes(model, cache, prompt, *[40] * 11)
    assert cache.can_cut(far) == (far == near)
    cache.cut(near)
    assert cache.position == near
    assert close(passes(model, cache, rest, 5), afresh(model, prompt[:near] + rest))


@pytest.mark.parametrize("name", ["qwen3_5", "baichuan_m1", "mamba", "deepseek_v41"])
def test_recurrent_layers_cannot_be_cut(name: str) -> None:
    model = make(name)
    cache = ModelCaches(model).make()
    passes(model, cache, prompt_of(10, 1), 10)
    assert cache.can_cut(10)
    assert not cache.can_cut(9)
    with pytest.raises(ValueError, match="cannot go back from 10 to 9"):
        cache.cut(9)


@pytest.mark.parametrize("name", MIXED)
def test_what_mlx_lm_has_read_by_itself_is_taken_over(name: str) -> None:
    """As its batches and its own loop leave them in the prompt cache."""
    model = make(name)
    prompt = prompt_of(45, 1)
    layers = make_prompt_cache(model)
    model(mx.array([prompt[:40]]), cache=layers)
    for token in prompt[40:-1]:
        model(mx.array([[token]]), cache=layers)
    stored = LRUPromptCache()
    stored.insert_cache("model", prompt[:-1], layers)
    fetched, rest = stored.fetch_nearest_cache("model", prompt)
    assert rest == prompt[-1:]
    cache = ModelCaches(model).adopt(fetched, len(prompt) - 1)
    truth = plain_text(model, prompt, 24)
    propose = scripted(truth, lambda at: (1.0, 0.0)[at // 6 % 2], seed=1)
    assert drafted_text(model, cache, prompt, 24, propose).text == truth


def test_a_quantized_cache_is_taken_back() -> None:
    """mlx_lm puts quantized layers in the place of the others in the list, also in the middle of a round."""
    model = make("qwen2", hidden_size=64, num_attention_heads=2, num_key_value_heads=2)
    prompt, drafts, rest = prompt_of(20, 1), prompt_of(5, 2), prompt_of(3, 3)
    outcomes = []
    for taken_back in (True, False):
        cache = ModelCaches(model).make()
        passes(model, cache, prompt, 20)
        cache.layers[:] = [layer.to_quantized(group_size=32, bits=8) for layer in cache.layers]
        cache.mark()
        if taken_back:
            passes(model, cache, drafts, 5)
            cache.rollback(2)
        else:
            passes(model, cache, drafts[:2], 2)
        outcomes.append(passes(model, cache, rest, 3))
    assert close(*outcomes)
    assert not close(outcomes[0], afresh(model, prompt + drafts + rest))


class OwnCache(KVCache):  # type: ignore[misc]
    """A kind that nobody here has seen."""


@pytest.mark.parametrize("kind", [OwnCache, ConcatenateKVCache])
def test_with_an_unknown_kind_of_cache_nothing_is_drafted(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("qwen2")
    monkeypatch.setattr(type(model), "make_cache", lambda _: [KVCache(), kind()], raising=False)
    refusal = ModelCaches(model).refusal
    assert refusal is not None
    assert f" keep {kind.__name__}, which" in refusal


def test_a_model_may_have_fewer_caches_than_layers_or_more() -> None:
    for name, number in (("gemma3n", 4), ("gemma4_text", 4), ("iquestloopcoder", 4), ("qwen2", 2)):
        model = make(name)
        caches = ModelCaches(model)
        assert caches.number == len(caches.make().layers) == number
        assert (len(model.layers) == number) == (name == "qwen2")


def test_models_are_observed_only_where_layers_are_recurrent() -> None:
    plain, recurrent = make("qwen2"), make("qwen3_5")
    for model in (plain, recurrent):
        assert not ModelCaches(model).rereads
        assert not ModelCaches(model).rereads  # and once more, as the draft model may be the target
    assert observed(recurrent) > 1
    assert not observed(plain)


def observed(model: Any) -> int:
    """Return how many modules are observed, each of them once."""
    names = [[kind.__name__ for kind in type(module).__mro__] for module in model.modules()]
    assert not any(first == second == third for first, second, third, *_ in names)
    return sum(first == second for first, second, *_ in names)


class Summing(nn.Module):  # type: ignore[misc]
    """A recurrent layer that takes no part of a pass."""

    def __call__(self, x: mx.array, cache: Any) -> mx.array:
        if x.shape[1] != len(TRIED):
            raise TypeError("five, please")
        return summed(x, cache)


def summed(x: mx.array, cache: Any) -> mx.array:
    before = cache[0] if cache[0] is not None else mx.zeros((1, 1, x.shape[-1]))
    cache[0] = before + x.sum(axis=1, keepdims=True)
    return before + x


class Odd(nn.Module):  # type: ignore[misc]
    """A model that is recurrent in such a layer, or in itself, where no module is called with its cache."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 8)
        self.layer = layer

    def make_cache(self) -> list[Any]:
        return [ArraysCache(1)]

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        layer: Any = self.layer or summed
        logits: mx.array = layer(self.embedding(tokens), cache[0])
        return logits


@pytest.mark.parametrize("layer", [Summing(), None])
def test_layers_that_cannot_read_a_part_again_are_found_out(layer: Any) -> None:
    model = Odd(layer)
    caches = ModelCaches(model)
    assert caches.refusal is None
    assert caches.rereads
    cache = caches.make()
    cache.mark()
    passes(model, cache, [1, 2, 3, 4, 5], 5)
    before = cache.layers[0][0]
    passes(model, cache, [1, 2, 3, 4, 5], 5)
    assert cache.rollback(7) == 5
    assert mx.array_equal(cache.layers[0][0], before)


def test_all_arrays_of_a_cache_are_computed_with_its_state() -> None:
    """A prompt is read in steps that compute `state`, and nothing else."""
    for name in ("gemma3_text", "llama4", "qwen3_5"):
        model = make(name)
        cache = ModelCaches(model).make()
        passes(model, cache, prompt_of(100, 1), 50, 50)
        for leaf in leaves(cache.layers):
            arrays = [value for value in vars(leaf).values() if isinstance(value, mx.array)]
            flat: Any = nn.utils.tree_flatten(leaf.state)
            assert len([value for _, value in flat if isinstance(value, mx.array)]) >= len(arrays)
