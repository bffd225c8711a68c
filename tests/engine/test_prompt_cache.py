"""The prompt cache with mlx's own key-value caches, filled by hand to known lengths."""

from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import ArraysCache, CacheList, ChunkedKVCache, KVCache, QuantizedKVCache

from draftd.engine.prompt_cache import TruePromptCache

TOKENS = list(range(100, 120))
MODEL = ("target", None, "draft")


def fill(layer: Any, length: int) -> Any:
    """Let a layer process so many tokens."""
    if length:
        rows = mx.arange(length * 64, dtype=mx.float32).reshape(1, 1, length, 64)
        layer.update_and_fetch(rows, rows)
    return layer


def layers(*lengths: int, kind: Any = KVCache) -> list[Any]:
    return [fill(kind(), length) for length in lengths]


def stored(cache: TruePromptCache, prompt: list[int]) -> tuple[list[int], list[int]]:
    """Return the offsets of the layers that the cache gives for a prompt, and the rest of the prompt."""
    found, rest = cache.fetch_nearest_cache(MODEL, prompt)
    return [layer.offset for layer in found or []], rest


@pytest.mark.parametrize(
    ("name", "lengths", "kept"),
    [
        ("every layer has the whole key", (20, 20, 20), (20, 20, 20)),
        ("the last token is the target's own", (19, 19, 19), (19, 19, 19)),
        ("and the draft model lags by one more", (19, 19, 18), (19, 19, 18)),
        ("the draft model has no generated token", (19, 19, 5), (19, 19, 5)),
        ("the draft model is ahead of the target model", (18, 18, 19), (18, 18, 18)),
        ("a layer is ahead of the key", (20, 23, 20), (20, 20, 20)),
    ],
)
@pytest.mark.parametrize("kind", [KVCache, QuantizedKVCache])
def test_the_key_is_cut_to_what_the_target_model_has_read(
    name: str, lengths: tuple[int, ...], kept: tuple[int, ...], kind: Any
) -> None:
    cache = TruePromptCache()
    cache.insert_cache(MODEL, TOKENS, layers(*lengths, kind=kind))
    assert stored(cache, [*TOKENS, 1, 2]) == ([*kept], [*TOKENS[kept[0] :], 1, 2]), name


def test_a_key_that_nobody_has_processed_is_not_stored() -> None:
    cache = TruePromptCache()
    cache.insert_cache(MODEL, TOKENS, layers(0, 0, 0))
    assert (len(cache), cache.nbytes) == (0, 0)


def test_a_prompt_equal_to_a_key_leaves_one_token() -> None:
    cache = TruePromptCache()
    cache.insert_cache(MODEL, TOKENS, layers(20, 20))
    for _ in range(2):  # what is stored is not what is handed out
        assert stored(cache, TOKENS) == ([19, 19], TOKENS[-1:])


def test_a_prompt_of_one_token_that_is_a_key() -> None:
    cache = TruePromptCache()
    cache.insert_cache(MODEL, [7], layers(1, 1))
    assert stored(cache, [7]) == ([], [7])


def test_a_prompt_shorter_than_a_key_leaves_one_token() -> None:
    cache = TruePromptCache()
    cache.insert_cache(MODEL, TOKENS, layers(19, 19, 18))
    assert stored(cache, TOKENS[:10]) == ([9] * 3, TOKENS[9:10])


def test_an_unknown_prompt_is_processed_as_a_whole() -> None:
    cache = TruePromptCache()
    assert cache.fetch_nearest_cache(MODEL, TOKENS) == (None, TOKENS)
    assert cache.fetch_nearest_cache(MODEL, []) == (None, [])


def test_layers_that_cannot_be_trimmed_give_way_to_a_shorter_prefix() -> None:
    cache = TruePromptCache()
    cache.insert_cache(MODEL, TOKENS[:8], [ArraysCache(1), *layers(8)])
    cache.insert_cache(MODEL, TOKENS, [ArraysCache(1), *layers(20)])
    found, rest = cache.fetch_nearest_cache(MODEL, TOKENS)
    assert found is not None
    assert (found[1].offset, rest) == (8, TOKENS[8:])


def test_layers_that_cannot_be_trimmed_are_not_used_for_their_own_key() -> None:
    cache = TruePromptCache()
    cache.insert_cache(MODEL, TOKENS, [ArraysCache(1)])
    assert cache.fetch_nearest_cache(MODEL, TOKENS) == (None, TOKENS)
    assert cache.fetch_nearest_cache(MODEL, [*TOKENS, 1])[1] == [1]


def test_layers_that_neither_fit_nor_can_be_cut_are_not_stored() -> None:
    cache = TruePromptCache()
    cache.insert_cache(MODEL, TOKENS, [*layers(19), ArraysCache(1)])
    assert len(cache) == 0


def test_a_draft_model_that_has_read_nothing_keeps_nothing_from_being_stored() -> None:
    cache = TruePromptCache()
    cache.insert_cache(MODEL, TOKENS, layers(19, 19, 0))
    assert stored(cache, [*TOKENS, 1]) == ([19, 19, 0], [TOKENS[-1], 1])
    assert stored(cache, TOKENS[:10]) == ([9, 9, 0], TOKENS[9:10])


def test_a_layer_of_several_caches_is_cut_in_each() -> None:
    cache = TruePromptCache()
    cache.insert_cache(MODEL, TOKENS, [CacheList(*layers(22, 21)), *layers(19)])
    found, rest = cache.fetch_nearest_cache(MODEL, [*TOKENS, 1])
    assert found is not None
    assert [part.offset for part in found[0].caches] + [found[1].offset] == [20, 20, 19]
    assert rest == [1]


def test_a_layer_that_has_forgotten_its_start_is_neither_stored_nor_fetched_too_long() -> None:
    chunked = fill(ChunkedKVCache(4), 20)
    chunked.maybe_trim_front()
    cache = TruePromptCache()
    cache.insert_cache(MODEL, TOKENS[:10], [chunked, *layers(10)])
    assert len(cache) == 0
    cache.insert_cache(MODEL, TOKENS, [chunked, *layers(20)])
    assert stored(cache, [*TOKENS, 1]) == ([20, 20], [1])
    assert cache.fetch_nearest_cache(MODEL, TOKENS[:10]) == (None, TOKENS[:10])


def test_the_books_balance_after_cutting_replacing_and_evicting() -> None:
    cache = TruePromptCache(max_size=2)
    for start in (0, 0, 30, 60, 60):  # twice the same key, and one more key than there is room for
        cache.insert_cache(MODEL, [start, *TOKENS], layers(20, 20, 19))
    size = sum(layer.nbytes for layer in layers(20, 20, 19))
    assert (len(cache), cache.nbytes) == (2, 2 * size)
    cache.insert_cache(MODEL, [60, *TOKENS, 1, 2], layers(22, 22, 22))  # takes the place of its prefix
    assert (len(cache), cache.nbytes) == (2, 2 * size)
    cache.trim_to(n_sequences=0)
    assert (len(cache), cache.nbytes) == (0, 0)


def test_the_limit_in_bytes_is_kept() -> None:
    size = sum(layer.nbytes for layer in layers(20, 20))
    cache = TruePromptCache(max_bytes=2 * size)
    for start in range(4):
        cache.insert_cache(MODEL, [start, *TOKENS], layers(20, 20))
        assert cache.nbytes <= 2 * size
    assert len(cache) == 2
    small = TruePromptCache(max_bytes=size - 1)
    small.insert_cache(MODEL, TOKENS, layers(20, 20))
    assert (len(small), small.nbytes) == (0, 0)
