"""The caches of single layers, all kinds alike: which there are, and how each is taken back."""

from collections.abc import Iterator
from typing import Any

from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    ChunkedKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
)

from draftd.engine.generation.caches.chunked import RewindableChunkedKVCache
from draftd.engine.generation.caches.recurrent import RecordingArraysCache
from draftd.engine.generation.caches.sliding import MARGIN, SlidingKVCache

Layers = list[Any]

_BY_OFFSET = (KVCache, QuantizedKVCache)
_BY_WINDOW = (SlidingKVCache, RewindableChunkedKVCache)
_BY_WINDOW_ONCE_ADOPTED = (RotatingKVCache, ChunkedKVCache)


def leaves(layers: Layers) -> Iterator[Any]:
    """Yield the caches, with those that consist of several taken apart."""
    for layer in layers:
        if isinstance(layer, CacheList):
            yield from leaves(list(layer.caches))
        else:
            yield layer


def is_state(leaf: Any) -> bool:
    """Whether all arrays of a cache are replaced by each pass, so that references to them are a copy of it."""
    return isinstance(leaf, ArraysCache) or _is_deepseek_v41(leaf)


def unknown_kinds(layers: Layers) -> list[str]:
    """Return the names of the kinds that nothing here can take back; a subclass is a kind of its own."""
    known = (*_BY_OFFSET, *_BY_WINDOW, *_BY_WINDOW_ONCE_ADOPTED, ArraysCache, RecordingArraysCache)
    kinds = {type(leaf) for leaf in leaves(layers) if type(leaf) not in known and not _is_deepseek_v41(leaf)}
    return sorted(kind.__name__ for kind in kinds)


def adopted(layer: Any, position: int) -> Any:
    """Return the counterpart, which can be taken back, of a cache that has read `position` tokens."""
    if isinstance(layer, CacheList):
        return CacheList(*(adopted(part, position) for part in layer.caches))
    if type(layer) is RotatingKVCache:
        return SlidingKVCache.of(layer)
    if type(layer) is ChunkedKVCache:
        return RewindableChunkedKVCache.of(layer)
    if type(layer) is ArraysCache:
        return RecordingArraysCache.of(layer, position)
    return layer


def can_rewind(leaf: Any, position: int) -> bool:
    """Whether a cache can be taken back to `position` without a state that was put aside."""
    if isinstance(leaf, _BY_WINDOW):
        return bool(leaf.can_rewind(position))
    if isinstance(leaf, _BY_OFFSET):
        return position <= int(leaf.offset)
    return position == int(leaf.offset)


def will_rewind(leaf: Any, position: int, end: int) -> bool:
    """Whether a cache that reads on to `end` is sure to go back to `position` afterwards."""
    if isinstance(leaf, SlidingKVCache):
        return end <= int(leaf.max_size) or end - position <= MARGIN
    if isinstance(leaf, RewindableChunkedKVCache):
        return end <= int(leaf.chunk_size) or end - position <= MARGIN
    return isinstance(leaf, _BY_OFFSET) or position == end


def rewind(leaf: Any, position: int) -> None:
    """Take a cache back to `position`, as `can_rewind` says that it can be."""
    if isinstance(leaf, _BY_WINDOW):
        leaf.rewind(position)
    elif isinstance(leaf, _BY_OFFSET) and leaf.offset > position:
        leaf.trim(leaf.offset - position)


def mark(leaf: Any) -> None:
    """Have a cache keep what it needs to come back to where it is."""
    if isinstance(leaf, _BY_WINDOW):
        leaf.mark()


def unmark(leaf: Any) -> None:
    """End that."""
    if isinstance(leaf, _BY_WINDOW):
        leaf.unmark()


def state_of(leaf: Any) -> dict[str, Any]:
    """Return references to the state of a cache for which `is_state` is true."""
    return {name: list(value) if isinstance(value, list) else value for name, value in vars(leaf).items()}


def put_back(leaf: Any, state: dict[str, Any]) -> None:
    """Put back what `state_of` returned; it can be put back again."""
    for name, value in state.items():
        setattr(leaf, name, list(value) if isinstance(value, list) else value)


def _is_deepseek_v41(leaf: Any) -> bool:
    kind = type(leaf)
    return kind.__module__ == "mlx_lm.models.deepseek_v41" and kind.__name__ == "LayerCache"
