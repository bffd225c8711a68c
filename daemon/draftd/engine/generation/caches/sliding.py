"""The cache of a layer that sees a window of the text: the counterpart of mlx_lm's `RotatingKVCache`.

Rows stand in the order of the text, and a pass is given those that its tokens may see: the `max_size - 1` before it
and its own. So a mask by position is right for a pass of any width and after any rollback. What is older is dropped
when the buffer is full, except what a rollback to the mark would need, and `MARGIN` rows more.

mlx_lm lets the tokens of a pass of several see otherwise than one alone in two cases: with `keep`, the first rows
of the text are hidden one by one, and a model may ask for a window larger than the cache (plamo3). A prompt is read
so here as well. In a round, between `mark` and `unmark`, each token sees what it would see alone.
"""

from collections.abc import Sequence
from typing import Any, Self

import mlx.core as mx
from mlx_lm.models.base import create_causal_mask
from mlx_lm.models.cache import RotatingKVCache

from draftd.engine.generation.caches.rewindable import Rewindable

MARGIN = 64  # tokens that a stored cache can be cut by, beyond what a round needs


class SlidingKVCache(Rewindable, RotatingKVCache):  # type: ignore[misc]  # mlx_lm has no types
    """Keys and values of a window of `max_size` tokens, of which the text's first `keep` never leave."""

    keys: Any
    values: Any

    def __init__(self, max_size: int, keep: int = 0) -> None:
        super().__init__(max_size, keep)
        self._start = 0  # the position in the text of the first row
        self._kept: tuple[mx.array, mx.array] | None = (
            None  # the first `keep` rows, once they have left the buffer
        )
        self._width = 0  # of the last pass

    @classmethod
    def of(cls, cache: RotatingKVCache) -> Self:
        """Return the counterpart of mlx_lm's cache, which is not to be used any more."""
        new = cls(cache.max_size, cache.keep)
        if cache.keys is None:
            return new
        keys, values = (cache._temporal_order(rows) for rows in (cache.keys, cache.values))
        new.offset, new._start = cache.offset, cache.offset - keys.shape[2]
        if new._start and cache.keep:
            new._kept = keys[..., : cache.keep, :], values[..., : cache.keep, :]
            keys, values = keys[..., cache.keep :, :], values[..., cache.keep :, :]
            new._start += cache.keep
        new.keys, new.values = keys, values
        return new

    @classmethod
    def with_rows(cls, max_size: int, start: int, rows: Sequence[mx.array] | None) -> Self:
        """Return a window of a text, with the keys and values of the tokens from position `start` on."""
        new = cls(max_size)
        if rows is not None:
            new.keys, new.values = rows
            new.offset, new._start = start + rows[0].shape[2], start
        return new

    @property
    def start(self) -> int:
        """The position in the text of the first row."""
        return self._start

    @property
    def kind(self) -> str:
        return f"a window of {self.max_size}"

    def rows(self) -> tuple[mx.array, mx.array]:
        """Return the keys and values from there on."""
        return self._temporal_order(self.keys), self._temporal_order(self.values)

    def can_rewind(self, position: int) -> bool:
        """Whether all that the token at `position` may see is here."""
        return position <= self.offset and (not self._start or position - self._before >= self._start)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append the rows of a pass; return those that its tokens may see."""
        self._width = keys.shape[2]
        self._make_room(keys, values)
        row = self.offset - self._start
        self.keys[..., row : row + self._width, :] = keys
        self.values[..., row : row + self._width, :] = values
        self.offset += self._width
        return self.keys_and_values()

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """Return the rows that the tokens of the last pass may see."""
        first = self.offset - self._width - self._before
        end = self.offset - self._start
        if first <= self.keep:
            return self.keys[..., :end, :], self.values[..., :end, :]
        row = first - self._start
        keys, values = self.keys[..., row:end, :], self.values[..., row:end, :]
        if self.keep:
            kept = self._kept or self._first_rows()
            keys, values = mx.concatenate([kept[0], keys], axis=2), mx.concatenate([kept[1], values], axis=2)
        return keys, values

    def make_mask(self, N: int, window_size: int | None = None, return_array: bool = False) -> Any:  # noqa: N803
        """Return the mask for a pass of `N` tokens, which is to be read next."""
        before = min(self.max_size - 1, self.offset)
        if N == 1:
            if window_size is None or window_size > before:
                return None
            return mx.arange(before + 1) > before - window_size
        window = window_size or self.max_size
        if (
            self._mark is not None
        ):  # what each token would see alone, which is never more than the cache holds
            window = min(window, self.max_size)
        if before + N <= window and not return_array:
            return "causal"
        if self.keep and self._mark is not None:
            seen_by, row = mx.arange(before, before + N)[:, None], mx.arange(before + N)
            return (row <= seen_by) & ((row < self.keep) | (row >= seen_by - self._before))
        return create_causal_mask(N, before, window_size=window)

    @property
    def state(self) -> Any:
        """The arrays, for mlx to compute."""
        return self.keys, self.values, self._kept

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.keys, self.values, *(self._kept or ()))
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def _before(self) -> int:
        """How many tokens before itself a token may see, those that never leave not counted."""
        return int(self.max_size - self.keep - 1)

    def _temporal_order(self, v: mx.array) -> mx.array:
        """Return the rows that are in use, for mlx_lm's batches."""
        return v[..., : self.offset - self._start, :]

    def _first_rows(self) -> tuple[mx.array, mx.array]:
        return mx.contiguous(self.keys[..., : self.keep, :]), mx.contiguous(self.values[..., : self.keep, :])

    def _make_room(self, keys: mx.array, values: mx.array) -> None:
        """Drop what is not needed any more and allocate, if the rows of a pass do not fit behind the others."""
        if self.keys is not None and self.offset - self._start + self._width <= self.keys.shape[2]:
            return
        first = (self.offset if self._mark is None else self._mark) - MARGIN - self._before
        if first <= max(self._start, self.keep):
            first = self._start
        elif self.keep and self._kept is None:
            self._kept = self._first_rows()
        rows = slice(first - self._start, self.offset - self._start)
        self.keys = _with_room(self.keys, rows, keys, self.step)
        self.values = _with_room(self.values, rows, values, self.step)
        self._start = first


def _with_room(old: mx.array | None, rows: slice, new: mx.array, step: int) -> mx.array:
    """Return the rows of `old` with room for `new` behind them."""
    batch, heads, width, size = new.shape
    used = rows.stop - rows.start
    room = (used + width + step - 1) // step * step - used
    empty = mx.zeros((batch, heads, room, size), new.dtype)
    return empty if old is None else mx.concatenate([old[..., rows, :], empty], axis=2)
