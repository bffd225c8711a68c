"""Several sequences in one pass of a model: a row for each, as long as it is.

One storage for each layer holds all rows. What a pass reads goes to each row's own end. Rows that read fewer tokens
than others are padded, see `ragged_layers`. So to take tokens back is to set a length, but for recurrent layers:
these are taken back before the next pass, for all rows at once, see `ragged_states`. Lengths are plain numbers on
this side: a round waits for the device once anyway. A row that leaves gives its place to the last one.

Positions are given to a model as an array. Not every model can take them so, nor states of different lengths;
`ragged_trial` finds out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import CacheList, KVCache, QuantizedKVCache

from draftd.engine.generation.caches.layers import Layers, adopted, leaves
from draftd.engine.generation.caches.ragged_layers import (
    MAX_WIDTH,
    RaggedKVCache,
    RaggedQuantizedKVCache,
    RaggedSlidingKVCache,
)
from draftd.engine.generation.caches.ragged_pass import PassShape
from draftd.engine.generation.caches.ragged_states import RaggedArraysCache
from draftd.engine.generation.caches.recurrent import RecordingArraysCache
from draftd.engine.generation.caches.sliding import SlidingKVCache
from draftd.engine.generation.rows import Rows, Tokens, lines_of


class RaggedBatch:
    """A model, and the rows that it reads together. `lengths` are in tokens of each row's text.

    All sequences have layers of the kinds that `layers` are of.
    """

    def __init__(self, model: Any, layers: Layers) -> None:
        self._model = model
        self._some_have_left = False
        self._recorded = 0  # passes that may have to be taken back in recurrent layers
        self.rows: list[RaggedRow] = []
        self.lengths: list[int] = []
        self.readers = 0  # rows that the last pass was for
        self.kinds = kinds(layers)
        self.has_plain = any(type(layer) is KVCache for layer in layers)  # that can be quantized
        self.layers = [_counterpart(layer) for layer in layers]
        self._leaves: list[Any] = list(leaves(self.layers))
        self._states = [leaf for leaf in self._leaves if isinstance(leaf, RaggedArraysCache)]
        self._others = [leaf for leaf in self._leaves if not isinstance(leaf, RaggedArraysCache)]
        windows = any(isinstance(leaf, RaggedSlidingKVCache) for leaf in self._leaves)
        self.max_width = MAX_WIDTH if windows else None  # tokens of a pass, in each row

    @property
    def is_empty(self) -> bool:
        """Whether all rows have left."""
        return all(row.has_left for row in self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return sum(leaf.nbytes for leaf in self._leaves)

    def join(self, layers: Layers, position: int) -> "RaggedRow":
        """Take in a sequence of which layers have read `position` tokens; they are copied. No row is in a round."""
        self._settle()
        row = RaggedRow(self, len(self.rows))
        self.rows.append(row)
        self.lengths.append(position)
        try:
            for mine, layer in zip(self._leaves, leaves(layers), strict=True):
                if position or isinstance(mine, RaggedArraysCache | RaggedSlidingKVCache):
                    mine.join(row.index, layer, position)
        except BaseException:
            self.leave(row)  # some layers have it already
            raise
        return row

    def leave(self, row: "RaggedRow") -> None:
        """Give up a row. Where others are in a round, its place is kept until that has ended."""
        row.has_left = self._some_have_left = True
        row.unmark()
        if not self._in_round():
            self._settle()

    def read(self, tokens: Mapping["RaggedRow", Tokens]) -> dict["RaggedRow", Rows]:
        """Read on in some rows; return the logits of each, a row for each of its tokens. Nothing is waited for.

        Rows between them that read nothing are padded as well. The lengths stay as they are: the caller says what
        was read. What the model raises leaves all rows as they were.
        """
        if not self._in_round():
            self._settle()
        places = [row.index for row in tokens]
        part = self.rows[min(places) : max(places) + 1]
        texts = [tokens.get(row, ()) for row in part]
        shape = PassShape(part[0].index, [row.position for row in part], [len(text) for text in texts])
        lines = lines_of(texts, shape.width)
        recorded = self._recorded > 0 or any(row.is_marked for row in tokens)
        self._begin(shape, recorded=recorded)
        try:
            logits = self._model(lines, cache=self.layers)
        except BaseException:
            self._break_off(recorded=recorded)
            raise
        for leaf in self._leaves:
            leaf.end()
        self.readers = len(tokens)
        first = part[0].index
        return {row: Rows(logits, lines, row.index - first, 0, len(read)) for row, read in tokens.items()}

    def layers_of(self, row: "RaggedRow") -> Layers:
        """Return layers as a sequence has them alone that have read the same: a copy."""
        copies: Iterator[Any] = (
            leaf.extract(row.index, row.position, self.lengths)
            if isinstance(leaf, RaggedArraysCache)
            else leaf.extract(row.index, row.position)
            for leaf in self._leaves
        )
        layers = [_with_leaves(layer, copies) for layer in self.layers]
        mx.eval([leaf.state for leaf in leaves(layers) if row.position])
        return layers

    def mark(self) -> int:
        """Return how many passes were recorded so far, for a row that begins a round."""
        if not self._in_round():
            self._settle()
        return self._recorded

    def _begin(self, shape: PassShape, *, recorded: bool) -> None:
        for layer in self._others:
            layer.begin(shape)
        for state in self._states:
            state.begin(shape, recorded=recorded)
        self._recorded += recorded

    def _break_off(self, *, recorded: bool) -> None:
        """End a pass as if it had not begun."""
        for layer in self._others:
            layer.end()
        for state in self._states:
            state.break_off(recorded=recorded)
        self._recorded -= recorded

    def _in_round(self) -> bool:
        """Whether a row may yet take back what was recorded."""
        return self._recorded > 0 and any(
            row.marked_after is not None and row.marked_after < self._recorded for row in self.rows
        )

    def _settle(self) -> None:
        """Let the states of all rows be those at their ends, and forget those who have left."""
        if self._recorded:
            for state in self._states:
                state.settle(self.lengths)
            self._recorded = 0
            for row in self.rows:
                row.marked_after = None if row.marked_after is None else 0
        if self._some_have_left:
            self._some_have_left = False
            self._compact()

    def _compact(self) -> None:
        order = list(range(len(self.rows)))
        for index in reversed(range(len(self.rows))):
            if self.rows[index].has_left:
                last = order.pop()
                if index < len(order):
                    order[index] = last
                    for layer in self._others:
                        layer.move(last, index)
        for state in self._states:
            state.keep(order)
        self.rows, self.lengths = [self.rows[old] for old in order], [self.lengths[old] for old in order]
        for index, row in enumerate(self.rows):
            row.index = index


class RaggedRow:
    """One sequence of a batch, in the place of its `SequenceCache`."""

    rereads = False

    def __init__(self, batch: RaggedBatch, index: int) -> None:
        self.batch = batch
        self.index = index
        self.has_left = False
        self.marked_after: int | None = None  # recorded passes, when its round began; None outside of a round
        self._mark = 0

    @property
    def position(self) -> int:
        """Tokens that were read."""
        return self.batch.lengths[self.index]

    @property
    def layers(self) -> Layers:
        """Layers that have read the same: a copy, so that the batch's memory is not held by it."""
        return self.batch.layers_of(self)

    @property
    def is_marked(self) -> bool:
        """Whether it is in a round."""
        return self.marked_after is not None

    def mark(self) -> None:
        """Begin a round."""
        self.marked_after = self.batch.mark()
        self._mark = self.position

    def unmark(self) -> None:
        """End a round as it is."""
        self.marked_after = None

    def advance(self, tokens: int) -> None:
        """Note that this many tokens were read."""
        self.batch.lengths[self.index] += tokens

    def rollback(self, keep: int) -> int:
        """Forget all but the first `keep` tokens since the mark. Raises ValueError as `SequenceCache` does."""
        if not self.is_marked or not 0 <= keep <= self.position - self._mark:
            raise ValueError(f"no {keep} tokens were read since a mark")
        self.batch.lengths[self.index] = self._mark + keep
        self.unmark()
        return self.position

    def can_cut(self, length: int) -> bool:
        """Whether the layers are known to be as they were after a prefix of `length` tokens."""
        return length == self.position

    def will_cut(self, length: int, end: int) -> bool:
        """Whether they will be known after a prefix of `length` tokens when they have read on to `end`."""
        return length == end


def can_join(layers: Sequence[Any]) -> bool:
    """Whether a sequence's layers are of kinds that can be put into a batch."""
    return all(map(_has_counterpart, leaves(list(layers))))


def batch_refusal_of(layers: Sequence[Any]) -> str | None:
    """Say which kinds of a model's layers cannot be put into a batch, if there are any."""
    found = leaves([adopted(layer, 0) for layer in layers])
    kinds = sorted({type(leaf).__name__ for leaf in found if not _has_counterpart(leaf)})
    return f"requests have passes of their own: the model's layers keep {', '.join(kinds)}" if kinds else None


def _has_counterpart(leaf: Any) -> bool:
    slides = type(leaf) is SlidingKVCache and not leaf.keep
    return slides or type(leaf) in (KVCache, QuantizedKVCache, RecordingArraysCache)


def kinds(layers: Sequence[Any]) -> tuple[Any, ...]:
    """Return what sequences must have in common to be in one batch."""
    return tuple((type(leaf), getattr(leaf, "bits", None)) for leaf in leaves(list(layers)))


def _counterpart(layer: Any) -> Any:
    if isinstance(layer, CacheList):
        return CacheList(*(_counterpart(part) for part in layer.caches))
    if isinstance(layer, SlidingKVCache):
        return RaggedSlidingKVCache(layer.max_size)
    if isinstance(layer, QuantizedKVCache):
        return RaggedQuantizedKVCache(layer.group_size, layer.bits)
    if isinstance(layer, RecordingArraysCache):
        return RaggedArraysCache(len(layer.cache))
    return RaggedKVCache()


def _with_leaves(layer: Any, copies: Iterator[Any]) -> Any:
    if isinstance(layer, CacheList):
        return CacheList(*(_with_leaves(part, copies) for part in layer.caches))
    return next(copies)
