"""Layers of a batch that keep an entry for each token: plain ones, windows, and quantized ones.

A storage is flat, (rows * heads * size, D), with the rows of one sequence together: a pass writes with one call,
and hands its keys to the attention as a view. What is written for padding lies beyond the row's end, where no token
sees it (a token sees what stands at its own position and before), and where the next pass writes over it.

A window is a ring: a token stands at its position modulo the size. There is room for SLACK tokens beside the
window, so that no padding, and nothing that is taken back, has written over what is in the window still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, QuantizedKVCache

from draftd.engine.generation.caches.sliding import MARGIN, SlidingKVCache

if TYPE_CHECKING:
    from draftd.engine.generation.caches.ragged_pass import PassShape

STEP = 256  # tokens by which a storage grows
SLACK = 192  # tokens of a ring beside its window
MAX_WIDTH = SLACK - MARGIN  # tokens of a pass, where layers see a window


class RowStore:
    """The entries of all rows in one array of a layer."""

    def __init__(self) -> None:
        self.size = 0  # entries of a row
        self._rows = 0
        self._flat: mx.array | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self._flat.nbytes if self._flat is not None else 0

    def make_room(self, like: mx.array, rows: int, size: int) -> None:
        """Make room for at least `rows` rows of `size` entries; `like` has the shape (n, heads, n, D)."""
        if rows <= self._rows and size <= self.size:
            return
        count, size = max(rows, self._rows), max(size, self.size)
        grown = mx.zeros((count, like.shape[1], size, like.shape[3]), like.dtype)
        if self._flat is not None:
            grown[: self._rows, :, : self.size] = self.by_row()
        self._flat = grown.reshape(-1, like.shape[3])
        self._rows, self.size = count, size

    def by_row(self) -> mx.array:
        """Return a view, (rows, heads, size, D)."""
        store: Any = self._flat
        rows: mx.array = store.reshape(self._rows, -1, self.size, store.shape[-1])
        return rows

    def write(self, new: mx.array, places: mx.array) -> None:
        """Put the entries of a pass, (rows, heads, n, D), in their places."""
        store: Any = self._flat
        self._flat = None  # the only other reference: so it is written in place
        self._flat = mx.put_along_axis(store, places, new.reshape(-1, new.shape[-1]), axis=0)

    def put(self, row: int, start: int, entries: mx.array) -> None:
        """Put entries, (heads, n, D), into a row."""
        stores = self.by_row()
        self._flat = None
        stores[row, :, start : start + entries.shape[1]] = entries
        self._flat = stores.reshape(-1, stores.shape[-1])

    def take(self, row: int, start: int, end: int) -> mx.array:
        """Return a copy of entries, (1, heads, n, D)."""
        return mx.contiguous(self.by_row()[row : row + 1, :, start:end])

    def move(self, source: int, row: int) -> None:
        """Copy one row over another."""
        if self._flat is not None and source < self._rows:  # else there is nothing in it yet
            self.put(row, 0, mx.contiguous(self.by_row()[source]))


class RaggedLayer:
    """What layers of a batch have in common. A pass begins with `begin`, and then the model uses the layer."""

    def __init__(self, arrays: int) -> None:
        self._stores = [RowStore() for _ in range(arrays)]
        self._shape: PassShape | None = None
        self._has_read = False
        self._seen: list[mx.array] = []

    @property
    def shape(self) -> PassShape:
        """The shape of the pass that has begun."""
        if self._shape is None:
            raise ValueError("no pass has begun")
        return self._shape

    @property
    def offset(self) -> Any:
        """How many tokens each row of the pass has read: with those of this pass, once they are here."""
        return self.shape.after if self._has_read else self.shape.offset

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return sum(store.nbytes for store in self._stores)

    def begin(self, shape: PassShape) -> None:
        """A pass begins."""
        self._shape, self._has_read = shape, False

    def end(self) -> None:
        """The pass has ended: what it has seen is not held any longer, or it could not be written in place."""
        self._seen = []

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """Return what the pass has seen, for layers that share it."""
        return self._seen[0], self._seen[1]

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:  # noqa: N803
        """Return the mask for the pass that has begun, which is of `N` tokens."""
        return self.shape.mask(window_size, return_array)

    def move(self, source: int, row: int) -> None:
        """Copy one row over another."""
        for store in self._stores:
            store.move(source, row)

    def _append(self, new: list[mx.array], *, ring: int | None = None) -> list[mx.array]:
        """Append to each row of the pass; return these rows, up to the end of the longest one, or whole rings."""
        shape, self._has_read = self.shape, True
        seen = []
        for store, entries in zip(self._stores, new, strict=True):
            store.make_room(entries, shape.part.stop, _rounded(shape.end, ring))
            store.write(entries, shape.places(entries.shape[1], store.size, ring=ring is not None))
            end = shape.end if ring is None or shape.end <= store.size else store.size
            seen.append(store.by_row()[shape.part, :, :end])
        self._seen = seen
        return seen

    def _put(self, row: int, position: int, entries: list[mx.array], ring: int | None = None) -> None:
        """Put the last entries before a position, (1, heads, n, D), into a row."""
        for store, array in zip(self._stores, entries, strict=True):
            store.make_room(array, row + 1, _rounded(position, ring))
            start, count = position - array.shape[2], array.shape[2]
            first = min(count, store.size - start % store.size)
            store.put(row, start % store.size, array[0, :, :first])
            if first < count:
                store.put(row, 0, array[0, :, first:])

    def _take(self, row: int, start: int, end: int) -> list[mx.array]:
        taken = []
        for store in self._stores:
            low, high = start % store.size, (end - 1) % store.size + 1
            parts = [(low, high)] if low < high else [(low, store.size), (0, high)]
            taken.append(mx.concatenate([store.take(row, *part) for part in parts], axis=2))
        return taken


class RaggedKVCache(RaggedLayer):
    """Keys and values of the whole text."""

    def __init__(self) -> None:
        super().__init__(2)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append to each row of the pass; return these rows, up to the end of the longest one."""
        seen = self._append([keys, values])
        return seen[0], seen[1]

    def join(self, row: int, layer: KVCache, position: int) -> None:
        """Copy in what a plain layer has read."""
        self._put(row, position, [array[..., :position, :] for array in (layer.keys, layer.values)])

    def extract(self, row: int, position: int) -> KVCache:
        """Return a plain layer with a copy of what a row has read."""
        layer = KVCache()
        if position:
            layer.keys, layer.values = self._take(row, 0, position)
            layer.offset = position
        return layer


class RaggedQuantizedKVCache(RaggedLayer):
    """The same in fewer bits."""

    def __init__(self, group_size: int, bits: int) -> None:
        super().__init__(6)
        self.group_size, self.bits = group_size, bits

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        """Append to each row of the pass; return the packed numbers, the scales and the biases of both."""
        packed = [mx.quantize(array, group_size=self.group_size, bits=self.bits) for array in (keys, values)]
        seen = self._append([array for three in packed for array in three])
        return tuple(seen[:3]), tuple(seen[3:])

    def join(self, row: int, layer: QuantizedKVCache, position: int) -> None:
        """Copy in what a quantized layer has read."""
        self._put(row, position, [array[..., :position, :] for array in (*layer.keys, *layer.values)])

    def extract(self, row: int, position: int) -> QuantizedKVCache:
        """Return a quantized layer with a copy of what a row has read."""
        layer = QuantizedKVCache(group_size=self.group_size, bits=self.bits)
        if position:
            arrays = self._take(row, 0, position)
            layer.keys, layer.values, layer.offset = tuple(arrays[:3]), tuple(arrays[3:]), position
        return layer


class RaggedSlidingKVCache(RaggedLayer):
    """Keys and values of a window of the text, in a ring for each row."""

    def __init__(self, max_size: int) -> None:
        super().__init__(2)
        self.max_size = max_size
        self._ring = max_size + SLACK
        self._first: dict[int, int] = {}  # where in each row's text that begins which was put in

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:  # noqa: N803
        """Return the mask for the pass that has begun, which is of `N` tokens."""
        window = min(window_size or self.max_size, self.max_size)
        if self.shape.end <= self._ring:
            return self.shape.mask(window, return_array)
        return self.shape.mask_of_ring(window, self._ring)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write to each row of the pass; return these rows, or the whole rings once one is full."""
        seen = self._append([keys, values], ring=self._ring)
        return seen[0], seen[1]

    def join(self, row: int, layer: SlidingKVCache, position: int) -> None:
        """Copy in what a window has of a text."""
        self._first[row] = first = max(layer.start, self._oldest(position))
        if position:
            entries = [array[..., first - layer.start :, :] for array in layer.rows()]
            self._put(row, position, entries, self._ring)

    def move(self, source: int, row: int) -> None:
        """Copy one row over another."""
        super().move(source, row)
        self._first[row] = self._first[source]

    def extract(self, row: int, position: int) -> SlidingKVCache:
        """Return a window with a copy of what a row has: of what it has not, the place may have another's."""
        start = max(self._first[row], self._oldest(position))
        keys_and_values = self._take(row, start, position) if position else None
        return SlidingKVCache.with_rows(self.max_size, start, keys_and_values)

    def _oldest(self, position: int) -> int:
        """Return the first token of a text that is kept when `position` were read."""
        return position - self.max_size + 1 - MARGIN


def _rounded(length: int, ring: int | None) -> int:
    size = -(-length // STEP) * STEP
    return size if ring is None else min(size, ring)
