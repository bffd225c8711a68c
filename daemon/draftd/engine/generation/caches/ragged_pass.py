"""The shape of a pass over rows: which rows of a batch it reads, from where each goes on, and who sees what."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx


class PassShape:
    """A pass of `width` tokens in each of some neighbouring rows, of which it has `starts` and own `widths`.

    A row that reads fewer tokens than others is padded. `end` is where the longest row ends, with the padding.
    """

    def __init__(self, first: int, starts: Sequence[int], widths: Sequence[int]) -> None:
        self.part = slice(first, first + len(starts))
        self.starts, self.widths = list(starts), list(widths)
        self.width = max(widths, default=0)
        self.end = max(starts, default=0) + self.width
        # A number where there is one row only: so models know it.
        self.offset: Any = starts[0] if len(starts) == 1 else mx.array(list(starts), mx.int32)
        self.after = self.offset + self.width
        self._is_level = len(set(starts)) == 1
        self._masks: dict[Any, mx.array] = {}
        self._places: dict[tuple[int, int, bool], mx.array] = {}
        self._reading: mx.array | None = None

    def mask(self, window: int | None, as_array: bool) -> Any:
        """Return what the tokens see in a storage in the order of the text, of which they may see a window."""
        beyond = bool(window and self.end > window)
        if self._is_level and not beyond and not as_array:  # all rows are as long: the simple kinds are right
            return None if self.width == 1 else "causal"
        if window not in self._masks:
            keys, queries = mx.arange(self.end), self._columns()[:, None, :, None]
            seen = keys <= queries
            self._masks[window] = seen & (queries < keys + window) if window else seen
        return self._masks[window]

    def mask_of_ring(self, window: int, size: int) -> mx.array:
        """Return the same for a ring of `size` entries: a token stands at its position modulo `size`."""
        if (window, size) not in self._masks:
            last = mx.array(self.after).reshape(-1, 1, 1, 1) - 1
            queries = self._columns()[:, None, :, None]
            keys = last - (last - mx.arange(size)) % size  # the newest token that can stand there
            self._masks[window, size] = (keys >= 0) & (keys <= queries) & (keys > queries - window)
        return self._masks[window, size]

    def places(self, heads: int, size: int, *, ring: bool = False) -> mx.array:
        """Return where the new entries go in a storage of rows of `heads` times `size` entries, (n, 1)."""
        if (heads, size, ring) not in self._places:
            starts = mx.arange(self.part.start * heads, self.part.stop * heads).reshape(-1, heads, 1) * size
            columns = self._columns() % size if ring else self._columns()
            self._places[heads, size, ring] = (starts + columns[:, None]).reshape(-1, 1)
        return self._places[heads, size, ring]

    @property
    def is_padded(self) -> bool:
        """Whether a row reads fewer tokens than others."""
        return min(self.widths) < self.width

    @property
    def reading(self) -> mx.array:
        """Which tokens are no padding, (rows, width): always the same array."""
        if self._reading is None:
            self._reading = mx.arange(self.width) < mx.array(self.widths)[:, None]
        return self._reading

    def _columns(self) -> mx.array:
        return mx.array(self.offset).reshape(-1, 1) + mx.arange(self.width)
