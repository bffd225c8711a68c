"""Finds out whether a model reads rows of different lengths as it reads each of them alone.

It is tried out on the model, with short texts, in windows that are shorter still: some rows read, other numbers of
tokens each, and keep other parts of it, while one reads nothing, and another reads on its own.

A GPU computes passes of other shapes by other kernels, so that in low precision the same tokens get other logits
when they are read one by one. A batch may differ by as much, and no model is refused for the noise of its device.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from draftd.engine.generation.caches.layers import leaves
from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.caches.ragged import RaggedBatch, RaggedRow, can_join
from draftd.engine.generation.caches.sequence import SequenceCache
from draftd.engine.generation.caches.sliding import SlidingKVCache

TEXTS = ([3, 1, 4, 1, 5, 9, 2], [6, 5], [3, 5, 8, 9])  # tokens that were read before
ROUNDS: Any = (  # for each row the tokens that it reads, and how many of them it keeps
    (([7, 9, 3, 2], 2), ([3, 8], 2), ([4], 1)),
    (([6, 2], 0), ([6, 4, 3, 3], 3), ([], 0)),
    (([], 0), ([], 0), ([8, 3, 2], 1)),
    (([3, 2], 2), ([7], 1), ([5, 0, 2], 3)),
)
WINDOW = 5  # tokens
MAX_DIFFERENCE = {
    mx.float32: 0.001
}  # between logits of a row and of a sequence, as a part of the largest one
MAX_DIFFERENCE_IN_LOW_PRECISION = 0.05
MAX_NOISE = 3.0  # times what the shape of a pass changes
MAX_DIFFERENCE_AT_ALL = 0.5  # the logits of another text differ by more


def is_exact(model: Any, make: Callable[[], SequenceCache], quantization: Quantization | None = None) -> bool:
    """Find out; `make` makes the cache of a sequence, and with a `quantization` its plain layers are quantized."""
    if not can_join(make().layers):
        return False
    try:
        pairs = _tried(model, make, quantization)
        tolerated = MAX_DIFFERENCE.get(pairs[0][0].dtype, MAX_DIFFERENCE_IN_LOW_PRECISION)
        allowed = min(max(MAX_NOISE * _noise(model, make), tolerated), MAX_DIFFERENCE_AT_ALL)
        return all(_difference(*pair) <= allowed for pair in pairs)
    except Exception:  # whatever a model raises that cannot take positions as an array, also when computed
        return False


def _tried(
    model: Any, make: Callable[[], SequenceCache], quantization: Quantization | None
) -> list[tuple[mx.array, mx.array]]:
    """Return pairs of logits: of rows, and of the same tokens alone."""
    alone = [make() for _ in TEXTS]
    for cache, text in zip(alone, TEXTS, strict=True):
        for leaf in leaves(cache.layers):
            if type(leaf) is SlidingKVCache:
                leaf.max_size = WINDOW
        cache.mark()  # so that a window is what it is in rounds
        _read(model, cache, text)
        cache.rollback(len(text))
        if quantization:
            cache.layers[:] = [
                layer.to_quantized(group_size=quantization.group_size, bits=quantization.bits)
                if type(layer) is KVCache
                else layer
                for layer in cache.layers
            ]
    batch = RaggedBatch(model, alone[0].layers)
    rows = [batch.join(cache.layers, cache.position) for cache in alone]
    return [pair for parts in ROUNDS for pair in _round(model, batch, rows, alone, parts)]


def _round(
    model: Any, batch: RaggedBatch, rows: list[RaggedRow], alone: list[SequenceCache], parts: Any
) -> list[tuple[mx.array, mx.array]]:
    reading = [(*each, *part) for *each, part in zip(rows, alone, parts, strict=True) if part[0]]
    for row, cache, *_ in reading:
        row.mark()
        cache.mark()
    logits = batch.read({row: tokens for row, _, tokens, _ in reading})
    pairs = []
    for row, cache, tokens, keep in reading:
        pairs.append((logits[row].array, _read(model, cache, tokens)))
        row.advance(len(tokens))
        row.rollback(keep)
        cache.rollback(keep)
    return pairs


def _read(model: Any, cache: SequenceCache, tokens: list[int]) -> mx.array:
    logits: mx.array = model(mx.array([tokens]), cache=cache.layers)[0]
    cache.advance(len(tokens))
    return logits


def _noise(model: Any, make: Callable[[], SequenceCache]) -> float:
    """Return how much it changes that tokens are read one by one and not in one pass."""
    return max(
        _difference(
            mx.concatenate([_read(model, one_by_one, [token]) for token in text]),
            _read(model, at_once, text),
        )
        for text, one_by_one, at_once in ((text, make(), make()) for text in TEXTS)
    )


def _difference(mine: mx.array, alone: mx.array) -> float:
    """Return the largest difference between logits, as a part of the largest one."""
    mine, alone = mine.astype(mx.float32), alone.astype(mx.float32)
    return (mx.abs(mine - alone).max() / mx.abs(alone).max()).item()  # type: ignore[return-value]
