"""The recurrent layers of a batch: a state for each row, and how each row comes back to another place.

mlx_lm lets recurrent layers know how many tokens of each row are no padding, by `lengths` and by a mask: the state
stands still after them. To take tokens back the states before a pass are put back, and its modules are called again
with the same numbers in them and shorter lengths, see `recurrent`: once for all rows, however many each keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from draftd.engine.generation.caches.ragged_pass import PassShape
from draftd.engine.generation.caches.recurrent import Call, RecordingArraysCache

States = list[Any]  # the arrays of a layer, of all rows; None before anything was read


@dataclass(frozen=True)
class Recorded:
    """A pass, the states before it, and what modules were called with in it."""

    shape: PassShape
    before: States
    calls: list[Call]


class RaggedArraysCache(RecordingArraysCache):
    """One layer of a batch, as models use it. `cache` has the states of all rows, in a pass those that it reads."""

    cache: States

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._rows = 0
        self._shape: PassShape | None = None
        self._recorded: list[Recorded] = []
        self._all: States = []

    def join(self, row: int, layer: RecordingArraysCache, position: int) -> None:
        """Append a row with the state of a layer of its own."""
        del position
        states: States = []
        for mine, other in zip(self.cache, layer.cache, strict=True):
            if mine is None and other is None:
                states.append(None)
                continue
            like: Any = mine if mine is not None else other
            shape = like.shape[1:]
            old = mx.zeros((row, *shape), like.dtype) if mine is None else mine
            new = mx.zeros((1, *shape), like.dtype) if other is None else other
            states.append(mx.concatenate([old, new]))
        self.cache = states
        self._rows = row + 1

    def extract(self, row: int, position: int, lengths: Sequence[int]) -> RecordingArraysCache:
        """Return a layer with a copy of the state of a row; `lengths` are those of all rows now."""
        layer = RecordingArraysCache(len(self.cache))
        states = self._states_at(lengths, [row])
        layer.cache = [None if state is None else mx.contiguous(state[row : row + 1]) for state in states]
        layer.offset = position
        return layer

    def keep(self, rows: list[int]) -> None:
        """Keep these rows, in this order."""
        self.cache = [None if state is None or not rows else state[mx.array(rows)] for state in self.cache]
        self._rows = len(rows)

    def begin(self, shape: PassShape, *, recorded: bool) -> None:
        """A pass begins; it can be taken back if it is `recorded`."""
        self._shape, self._all = shape, list(self.cache)
        self.cache = [None if state is None else state[shape.part] for state in self._all]
        can_part = recorded and shape.width > 1  # of one token all or nothing stays
        self.lengths = mx.array(shape.widths) if can_part or shape.is_padded else None
        calls: list[Call] = []
        self.calls = calls if can_part else None
        if recorded:
            self._recorded.append(Recorded(shape, self._all, calls))

    def make_mask(self, N: int) -> mx.array | None:  # noqa: N803
        """Return which tokens of each row are no padding; None if all are, and none can be taken back."""
        return self._shape.reading if self._shape is not None and self.lengths is not None else None

    def end(self) -> None:
        """The pass has ended."""
        if self._shape is not None:
            self.cache = _merged(self._all, self.cache, self._shape.part, self._rows)
        self._shape = self.lengths = self.calls = None

    def break_off(self, *, recorded: bool) -> None:
        """End a pass as if it had not begun; it was to be `recorded`."""
        self.cache = self._all
        if recorded:
            self._recorded.pop()
        self._shape = self.lengths = self.calls = None

    def settle(self, lengths: Sequence[int]) -> None:
        """Come to where each row is now. What was recorded is forgotten."""
        self.cache = self._states_at(lengths, range(self._rows))
        self._recorded = []

    def _states_at(self, lengths: Sequence[int], rows: Sequence[int]) -> States:
        """Return states that are right for these rows."""
        states = list(self.cache)
        for number, recorded in enumerate(self._recorded):
            shape = recorded.shape
            kept = [lengths[row] - start for row, start in enumerate(shape.starts, shape.part.start)]
            ending = [
                row
                for row in rows
                if shape.part.start <= row < shape.part.stop
                and kept[place := row - shape.part.start] < shape.widths[place]
                and not self._ends_before(number, row, lengths[row])
            ]
            if ending and len(self._recorded) == 1:
                return self._at(recorded, kept)  # is right for all
            if ending:
                states = _chosen(ending, self._at(recorded, kept), states, self._rows)
        return states

    def _ends_before(self, number: int, row: int, length: int) -> bool:
        """Whether a row ends in an earlier pass than this one."""
        shapes = [recorded.shape for recorded in self._recorded[:number]]
        return any(
            shape.part.start <= row < shape.part.stop
            and length - shape.starts[row - shape.part.start] < shape.widths[row - shape.part.start]
            for shape in shapes
        )

    def _at(self, recorded: Recorded, kept: Sequence[int]) -> States:
        """Return the states after the first `kept` tokens of each row of a pass."""
        shape = recorded.shape
        kept = [max(0, min(own, width)) for own, width in zip(kept, shape.widths, strict=True)]
        if not any(kept):
            return recorded.before
        part = PassShape(shape.part.start, shape.starts, kept)
        saved, self.cache = (
            self.cache,
            [None if state is None else state[shape.part] for state in recorded.before],
        )
        self.lengths = mx.array(kept)
        for call in recorded.calls:
            call.again(shape.width, part.width, (shape.reading, part.reading))
        states = _merged(recorded.before, self.cache, shape.part, self._rows)
        self.cache, self.lengths = saved, None
        return states


def _merged(before: States, read: States, part: slice, rows: int) -> States:
    """Return the states of all rows, of which a part was read."""
    if part == slice(0, rows):
        return list(read)
    merged = []
    for old, new in zip(before, read, strict=True):
        rest = mx.zeros((rows, *new.shape[1:]), new.dtype) if old is None else old
        merged.append(mx.concatenate([rest[: part.start], new, rest[part.stop :]]))
    return merged


def _chosen(rows: Sequence[int], these: States, others: States, count: int) -> States:
    """Return these states for some rows, and the others for all others."""
    if len(rows) == count:
        return list(these)
    is_chosen = mx.array([row in rows for row in range(count)])
    chosen = []
    for this, other in zip(these, others, strict=True):
        mask = is_chosen.reshape(-1, *[1] * (other.ndim - 1))
        chosen.append(mx.where(mask, mx.zeros_like(other) if this is None else this, other))
    return chosen
