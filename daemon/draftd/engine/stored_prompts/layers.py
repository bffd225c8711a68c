"""The caches of layers as data, and back: JSON that says what there is, and the arrays that it speaks of.

A cache is its kind and its attributes, whatever these are called, so all kinds are treated alike and come back as
they were. Rows that no token has written are left out. Only the kinds named here come back: a file cannot choose a
class of its own. A cache that holds anything but numbers, texts, arrays and lists of them is not stored.
"""

import importlib
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    ChunkedKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
)

from draftd.engine.generation.caches.chunked import RewindableChunkedKVCache
from draftd.engine.generation.caches.layers import Layers
from draftd.engine.generation.caches.recurrent import RecordingArraysCache
from draftd.engine.generation.caches.sliding import SlidingKVCache

KINDS = {
    kind.__name__: kind
    for kind in (
        *(ArraysCache, CacheList, ChunkedKVCache, KVCache, QuantizedKVCache, RotatingKVCache),
        *(RecordingArraysCache, RewindableChunkedKVCache, SlidingKVCache),
    )
}
ELSEWHERE = {"LayerCache": "mlx_lm.models.deepseek_v41"}  # imported only where a model has brought it along
ROWS = ("keys", "values")
DTYPES = (
    *("bool_", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "complex64"),
)
_BY_DTYPE = {getattr(mx, name): name for name in DTYPES}


class UnstorableError(Exception):
    """A cache holds something that is not known here. The text says what."""


def taken_apart(layers: Layers) -> tuple[list[Any], list[mx.array]]:
    """Return what there is as JSON, and the arrays, not computed yet. Raise UnstorableError."""
    arrays: list[mx.array] = []
    return [_told(layer, arrays) for layer in layers], arrays


def put_together(told: list[Any], arrays: list[mx.array]) -> Layers:
    """Return the layers again. Raise ValueError if they cannot be had from this."""
    try:
        return [_made(layer, arrays) for layer in told]
    except (AttributeError, ImportError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"its layers make no sense: {error!r}") from error


def shape_of(array: mx.array) -> list[Any]:
    """Return the type and the shape of an array as JSON, without computing it."""
    return [_BY_DTYPE[array.dtype], list(array.shape)]


def bytes_of(array: mx.array) -> memoryview:
    """Compute an array, and return the memory that it is in. For the thread that generates."""
    flat: Any = mx.contiguous(array).reshape(-1).view(mx.uint8)
    mx.eval(flat)
    return memoryview(flat)


def arrays_in(shapes: list[Any], data: Any) -> Iterator[mx.array]:
    """Yield the arrays of these types and shapes from their memory. Raise ValueError if they do not fill it."""
    begin = 0
    for name, shape in shapes:
        if name not in DTYPES:
            raise ValueError(f"there is no type {name}")
        dtype = getattr(mx, name)
        end = begin + dtype.size
        for size in shape:
            end = begin + (end - begin) * size
        if end > len(data):
            raise ValueError("it is too short for its arrays")
        if end > begin:
            yield mx.array(data[begin:end]).view(dtype).reshape(shape)
        else:
            yield mx.zeros(shape, dtype)
        begin = end
    if begin != len(data):
        raise ValueError("it is longer than its arrays")


def _told(value: Any, arrays: list[mx.array]) -> Any:
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if isinstance(value, mx.array):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if type(value) in {list, tuple}:
        return {type(value).__name__: [_told(part, arrays) for part in value]}
    name = type(value).__name__
    if _kind(name) is not type(value):
        raise UnstorableError(f"a {name}")
    used = _rows_used(value)
    attributes = {
        key: _told(_first_rows(part, used) if key in ROWS and used is not None else part, arrays)
        for key, part in vars(value).items()
    }
    return {"kind": name, "attributes": attributes}


def _made(told: Any, arrays: list[mx.array]) -> Any:
    if not isinstance(told, dict):
        return told
    if "array" in told:
        return arrays[told["array"]]
    if "list" in told:
        return [_made(part, arrays) for part in told["list"]]
    if "tuple" in told:
        return tuple(_made(part, arrays) for part in told["tuple"])
    kind = _kind(told["kind"])
    if kind is None:
        raise ValueError(f"there is no kind {told['kind']}")
    made = kind.__new__(kind)
    vars(made).update({key: _made(part, arrays) for key, part in told["attributes"].items()})
    return made


def _kind(name: str) -> Any:
    if name in ELSEWHERE:
        return getattr(importlib.import_module(ELSEWHERE[name]), name)
    return KINDS.get(name)


def _rows_used(cache: Any) -> int | None:
    """How many rows of the keys stand for tokens; None where that is not to be known, or does not matter."""
    if isinstance(cache, SlidingKVCache):
        return int(cache.offset - cache.start)
    if isinstance(cache, ChunkedKVCache):
        return int(cache.offset - cache.start_position)
    return int(cache.offset) if isinstance(cache, KVCache | QuantizedKVCache) else None


def _first_rows(rows: Any, count: int) -> Any:
    if isinstance(rows, mx.array):
        return rows[..., :count, :]
    return rows if rows is None else tuple(_first_rows(part, count) for part in rows)
