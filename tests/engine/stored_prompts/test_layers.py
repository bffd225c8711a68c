"""Kinds of cache: each comes back as it was, and what holds something else is not stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import ArraysCache, CacheList, ChunkedKVCache, KVCache, RotatingKVCache

from draftd.engine.stored_prompts.layers import (
    UnstorableError,
    arrays_in,
    bytes_of,
    put_together,
    shape_of,
    taken_apart,
)
from tests.engine.stored_prompts.engines import MODEL, PROMPT, Engine, files, filled


def kinds() -> list[Any]:
    arrays = ArraysCache(3)
    arrays[0], arrays[2] = mx.ones((1, 4)), mx.array(3)
    rotated = filled(lambda: RotatingKVCache(max_size=16, keep=2), 40)
    one = mx.random.normal((1, 2, 1, 64)).astype(mx.bfloat16)
    rotated.update_and_fetch(one, one)
    plain = filled(KVCache, 21)
    pair = CacheList(filled(KVCache, 5), arrays)
    return [
        plain,
        plain.to_quantized(bits=4),
        rotated,
        filled(lambda: ChunkedKVCache(16), 30),
        arrays,
        pair,
        KVCache(),
    ]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, mx.array):
        return a.dtype == b.dtype and bool(mx.array_equal(a, b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dict__"):
        return (
            type(a) is type(b)
            and vars(a).keys() == vars(b).keys()
            and same([*vars(a).values()], [*vars(b).values()])
        )
    return bool(a == b)


@pytest.mark.parametrize("layer", kinds(), ids=lambda layer: type(layer).__name__)
def test_each_kind_of_cache_comes_back_as_it_was(layer: Any) -> None:
    told, arrays = taken_apart([layer])
    data = b"".join(bytes(bytes_of(array)) for array in arrays)
    (back,) = put_together(told, list(arrays_in([shape_of(array) for array in arrays], memoryview(data))))
    (again,) = put_together(told, arrays)
    assert same(again, back)
    if isinstance(layer, KVCache) and layer.keys is not None:
        assert back.keys.shape[2] == back.offset == layer.offset
    more = mx.random.normal((1, 2, 3, 64)).astype(mx.bfloat16)
    if hasattr(layer, "update_and_fetch"):
        assert same(layer.update_and_fetch(more, more), back.update_and_fetch(more, more))


def test_what_holds_something_else_is_not_stored(tmp_path: Path) -> None:
    layer = KVCache()
    layer.model = object()
    with pytest.raises(UnstorableError, match="a object"):
        taken_apart([layer])
    engine = Engine(tmp_path)
    engine.put(PROMPT)
    engine.cache.layers_of(MODEL, PROMPT)[0].model = object()  # type: ignore[index]  # it is there
    engine.end()
    assert engine.said == ["a prompt cache could not be stored: it holds a object"]
    assert files(tmp_path) == []
