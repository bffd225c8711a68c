"""Several sequences in one pass of a model with plain layers: a row for each, as long as it is.

One storage for each layer holds all rows. What a pass reads goes to each row's own end. Rows that read fewer tokens
than others are padded: what is written for the padding lies beyond the row's end, where no token sees it (a token
sees what stands at its own position and before), and where the next pass writes over it. So to take tokens back is
to set a length. Lengths are plain numbers on this side: a round waits for the device once anyway.

The storage is flat, (rows * heads * size, D), with the rows of one sequence together: a pass writes with one call,
and hands its keys to the attention as a view. A row that leaves gives its place to the last one.

Positions are given to a model as an array. Not every model can take them so; `is_exact` finds out.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, make_prompt_cache

from draftd.engine.generation.caches.layers import Layers

STEP = 256  # tokens by which the storage grows
TRIED = ([3, 1, 4, 1, 5], [9, 2, 6], [5, 8])  # rows with which a model is tried out
MAX_DIFFERENCE = {
    mx.float32: 0.001
}  # between logits of a row and of a sequence, as a part of the largest one
MAX_DIFFERENCE_IN_LOW_PRECISION = 0.05


class RaggedBatch:
    """A model, and the rows that it reads together. `lengths` are in tokens of each row's text."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._width = 0
        self._passes = 0
        self._masks: dict[int | None, mx.array] = {}
        self._places: dict[tuple[int, int], mx.array] = {}
        self.rows: list[RaggedRow] = []
        self.lengths: list[int] = []
        self.readers = 0  # rows that the last pass was for
        self.layers = [RaggedKVCache(self) for _ in make_prompt_cache(model)]
        self._begin(slice(0, 0), 0)

    def join(self, layers: Layers, position: int) -> "RaggedRow":
        """Take in a sequence of which plain layers have read `position` tokens; they are copied."""
        row = RaggedRow(self, len(self.rows))
        self.rows.append(row)
        self.lengths.append(position)
        for mine, layer in zip(self.layers, layers, strict=True):
            if position:
                mine.join(row.index, layer, position)
        return row

    def leave(self, row: "RaggedRow") -> None:
        """Give up a row."""
        last = self.rows.pop()
        length = self.lengths.pop()
        if last is not row:
            for layer in self.layers:
                layer.move(last.index, row.index, length)
            self.rows[row.index], self.lengths[row.index] = last, length
            last.index = row.index

    def read(self, tokens: dict["RaggedRow", mx.array]) -> dict["RaggedRow", mx.array]:
        """Read on in some rows; return the logits of each, a row for each of its tokens. Nothing is waited for.

        Rows between them that read nothing are padded as well. The lengths stay as they are: the caller says what
        was read.
        """
        width = max(part.size for part in tokens.values())
        places = [row.index for row in tokens]
        part = slice(min(places), max(places) + 1)
        lines = [_padded(tokens.get(row), width) for row in self.rows[part]]
        self.readers = len(tokens)
        self._begin(part, width)
        logits = self._model(mx.stack(lines), cache=self.layers)
        return {row: logits[row.index - part.start, : read.size] for row, read in tokens.items()}

    def _begin(self, part: slice, width: int) -> None:
        """A pass of so many tokens in each row of a part of them begins."""
        lengths = self.lengths[part]
        self._passes += 1
        self._width = width
        self.part = part
        self.offset: Any = lengths[0] if len(lengths) == 1 else mx.array(lengths, mx.int32)
        self.after = self.offset + width
        self.end = max(lengths, default=0) + width
        self._level = len(set(lengths)) == 1
        self._masks, self._places = {}, {}

    @property
    def passes(self) -> int:
        """How many passes have begun."""
        return self._passes

    def mask(self, window: int | None, as_array: bool) -> Any:
        """Return what the tokens of this pass may see."""
        if self._level and not window and not as_array:  # all rows are as long: the simple kinds are right
            return None if self._width == 1 else "causal"
        if window not in self._masks:
            keys, queries = mx.arange(self.end), self._columns()[:, None, :, None]
            seen = keys <= queries
            self._masks[window] = seen & (queries < keys + window) if window else seen
        return self._masks[window]

    def places(self, heads: int, size: int) -> mx.array:
        """Return where the new entries go in a storage of rows of `heads` times `size` entries, (n, 1)."""
        if (heads, size) not in self._places:
            first, count = self.part.start, self.part.stop - self.part.start
            starts = mx.arange(first * heads, (first + count) * heads).reshape(-1, heads, 1) * size
            self._places[heads, size] = (starts + self._columns()[:, None]).reshape(-1, 1)
        return self._places[heads, size]

    def _columns(self) -> mx.array:
        return mx.array(self.offset).reshape(-1, 1) + mx.arange(self._width)


class RaggedRow:
    """One sequence of a batch, in the place of its `SequenceCache`."""

    rereads = False

    def __init__(self, batch: RaggedBatch, index: int) -> None:
        self.batch = batch
        self.index = index
        self._mark: int | None = None

    @property
    def position(self) -> int:
        """Tokens that were read."""
        return self.batch.lengths[self.index]

    @property
    def layers(self) -> Layers:
        """Plain layers that have read the same: a copy, so that the batch's memory is not held by it."""
        layers = [layer.extract(self.index, self.position) for layer in self.batch.layers]
        mx.eval([layer.state for layer in layers if layer.offset])
        return layers

    def mark(self) -> None:
        """Begin a round."""
        self._mark = self.position

    def advance(self, tokens: int) -> None:
        """Say that so many tokens were read."""
        self.batch.lengths[self.index] += tokens

    def rollback(self, keep: int) -> int:
        """Forget all but the first `keep` tokens since the mark. Raises ValueError as `SequenceCache` does."""
        if self._mark is None or not 0 <= keep <= self.position - self._mark:
            raise ValueError(f"no {keep} tokens were read since a mark")
        self.batch.lengths[self.index] = self._mark + keep
        self._mark = None
        return self.position

    def can_cut(self, length: int) -> bool:
        """Whether the layers can be cut to a prefix of `length` tokens."""
        return length <= self.position


class RaggedKVCache:
    """One layer of a batch, as models use it."""

    def __init__(self, batch: RaggedBatch) -> None:
        self._batch = batch
        self._rows = self._size = self._pass = 0
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    @property
    def offset(self) -> Any:
        """How many tokens each row of the pass has read: with those of this pass, once they are here.

        A number where it has one row only, as models know it.
        """
        return self._batch.after if self._pass == self._batch.passes else self._batch.offset

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return sum(store.nbytes for store in (self.keys, self.values) if store is not None)

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:  # noqa: N803
        """Return the mask for the pass that has begun, which is of `N` tokens."""
        return self._batch.mask(window_size, return_array)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append to each row of the pass; return them, up to the end of the longest one."""
        self._make_room(keys, values, len(self._batch.lengths), self._batch.end)
        self._pass = self._batch.passes
        return self._write("keys", keys), self._write("values", values)

    def join(self, row: int, layer: KVCache, length: int) -> None:
        """Copy in what a plain layer has read."""
        self._make_room(layer.keys, layer.values, row + 1, length)
        for name in ("keys", "values"):
            self._put(name, row, getattr(layer, name)[0, :, :length])

    def move(self, source: int, row: int, length: int) -> None:
        """Copy one row over another."""
        for name in ("keys", "values"):
            if length:  # else there may be no storage for that row yet
                self._put(name, row, mx.contiguous(self._by_row(name)[source, :, :length]))

    def extract(self, row: int, length: int) -> KVCache:
        """Return a plain layer with what a row has read."""
        layer = KVCache()
        if self.keys is not None and length:
            layer.keys, layer.values = (
                mx.contiguous(self._by_row(name)[row : row + 1, :, :length]) for name in ("keys", "values")
            )
            layer.offset = length
        return layer

    def _by_row(self, name: str) -> mx.array:
        store: mx.array = getattr(self, name)
        return store.reshape(self._rows, -1, self._size, store.shape[-1])

    def _put(self, name: str, row: int, entries: mx.array) -> None:
        stores = self._by_row(name)
        setattr(self, name, None)  # the only other reference: so it is written in place
        stores[row, :, : entries.shape[1]] = entries
        setattr(self, name, stores.reshape(-1, stores.shape[-1]))

    def _write(self, name: str, new: mx.array) -> mx.array:
        _, heads, _, depth = new.shape
        store = getattr(self, name)
        setattr(self, name, None)
        places = self._batch.places(heads, self._size)
        store = mx.put_along_axis(store, places, new.reshape(-1, depth), axis=0)
        setattr(self, name, store)
        return self._by_row(name)[self._batch.part, :, : self._batch.end]

    def _make_room(self, keys: mx.array, values: mx.array, rows: int, length: int) -> None:
        """Let the storage have so many rows, and so many entries in each."""
        if rows <= self._rows and length <= self._size:
            return
        count, size = max(rows, self._rows), max(-(-length // STEP) * STEP, self._size)
        for name, like in (("keys", keys), ("values", values)):
            grown = mx.zeros((count, like.shape[1], size, like.shape[3]), like.dtype)
            if getattr(self, name) is not None:
                grown[: self._rows, :, : self._size] = self._by_row(name)
            setattr(self, name, grown.reshape(-1, like.shape[3]))
        self._rows, self._size = count, size


def can_join(layers: Sequence[Any]) -> bool:
    """Whether a sequence's layers are of the kind that can be put into a batch."""
    return all(type(layer) is KVCache for layer in layers)


def is_exact(model: Any) -> bool:
    """Find out whether a model reads rows of different lengths as it reads each of them alone."""
    if not can_join(make_prompt_cache(model)):
        return False
    try:
        return all(_close(*pair) for pair in _tried(model))
    except Exception:  # whatever a model raises that cannot take positions as an array, also when computed
        return False


def _tried(model: Any) -> list[tuple[mx.array, mx.array]]:
    """Return pairs of logits: of rows, some tokens of which were taken back, and of the same tokens alone."""
    batch = RaggedBatch(model)
    rows = [batch.join([KVCache() for _ in batch.layers], 0) for _ in TRIED]
    batch.read({row: mx.array(text, mx.uint32) for row, text in zip(rows, TRIED, strict=True)})
    for row, text in zip(rows, TRIED, strict=True):
        row.advance(len(text) - row.index % 2)  # from one of them a token is taken back
    texts = {
        row: [*text[: row.position], 7, *[7] * (row.index % 2)] for row, text in zip(rows, TRIED, strict=True)
    }
    again = {row: mx.array(text[row.position :], mx.uint32) for row, text in texts.items()}
    return [
        (logits[-1], model(mx.array([texts[row]]), cache=make_prompt_cache(model))[0, -1])
        for row, logits in batch.read(again).items()
    ]


def _close(mine: mx.array, alone: mx.array) -> bool:
    share = MAX_DIFFERENCE.get(alone.dtype, MAX_DIFFERENCE_IN_LOW_PRECISION)
    mine, alone = mine.astype(mx.float32), alone.astype(mx.float32)
    return bool((mx.abs(mine - alone).max() <= share * mx.abs(alone).max()).item())


def _padded(tokens: mx.array | None, width: int) -> mx.array:
    if tokens is None:
        return mx.zeros((width,), mx.uint32)
    return mx.pad(tokens.astype(mx.uint32), (0, width - tokens.size))
