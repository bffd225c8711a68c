"""How much memory the cache of a sequence is said to take, against what it takes."""

import mlx.core as mx
import pytest

from draftd.engine.generation.caches.layers import leaves
from draftd.engine.generation.caches.ragged import RaggedBatch
from draftd.engine.generation.caches.sequence import ModelCaches
from draftd.engine.generation.caches.sizes import CacheSize
from tests.engine.architectures.models import make


@pytest.mark.parametrize("name", ["qwen2", "gemma3_text", "qwen3_next", "falcon_h1"])
@pytest.mark.parametrize("tokens", [40, 700])
def test_a_sequence_takes_what_was_said(name: str, tokens: int) -> None:
    model = make(name)
    caches = ModelCaches(model)
    size = CacheSize.of(model, caches.make)
    batch = RaggedBatch(model, caches.make().layers)
    for length in (tokens, tokens - 9):
        cache = caches.make()
        model(mx.array([[7] * length]), cache=cache.layers)
        cache.advance(length)
        taken = sum(leaf.nbytes for leaf in leaves(cache.layers))
        assert taken <= 1.8 * size.bytes(length), "a window may hold the prompt that was just read"
        batch.join(cache.layers, length)
    said = size.together([tokens, tokens - 9])
    assert 0.5 * said <= batch.nbytes <= said


def test_a_window_and_a_state_do_not_grow_with_the_text() -> None:
    size = CacheSize(100, ((10, None), (10, 300)))
    assert size.bytes(200) == 100 + 2560 + 2560
    assert size.bytes(2000) == 100 + 20480 + 3000
    assert (size + CacheSize(1, ((1, None),))).bytes(256) == 101 + 2560 + 2560 + 256


def test_the_shorter_ones_of_a_batch_are_padded() -> None:
    size = CacheSize(0, ((1, None),))
    assert size.together([256, 1024]) == 2 * 1024
    assert size.together([256, 5120, 4864]) == 256 + 2 * 5120
