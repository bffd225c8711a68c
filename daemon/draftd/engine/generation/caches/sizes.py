"""How much memory the cache of a sequence takes by its length, found out from the model itself."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import mlx.core as mx

from draftd.engine.generation.caches.layers import leaves
from draftd.engine.generation.caches.ragged_layers import SLACK, STEP
from draftd.engine.generation.caches.sequence import SequenceCache
from draftd.engine.generation.round_times import table_of


@dataclass(frozen=True, slots=True)
class CacheSize:
    """Bytes of the caches of a sequence in one model or several.

    `fixed` are those of states. Of each layer that keeps its tokens `growing` has the bytes of a token, and how
    many tokens it keeps at most; None if it keeps all.
    """

    fixed: int = 0
    growing: tuple[tuple[int, int | None], ...] = ()

    @classmethod
    def of(cls, model: Any, make: Callable[[], SequenceCache]) -> Self:
        """Let a model read a token, and see what that takes. What is quantized later is counted as it is before."""
        cache = make()
        mx.eval(cache.read(model, mx.array([[0]])))
        fixed, growing = 0, []
        for leaf in leaves(cache.layers):
            keys = getattr(leaf, "keys", None)
            if isinstance(keys, mx.array) and keys.ndim > 2:
                window = getattr(leaf, "max_size", None)
                growing.append((leaf.nbytes // keys.shape[2], window and window + SLACK))
            else:
                fixed += leaf.nbytes
        return cls(fixed, tuple(growing))

    def __add__(self, other: "CacheSize") -> "CacheSize":
        return CacheSize(self.fixed + other.fixed, self.growing + other.growing)

    def bytes(self, tokens: int) -> int:
        """Return how many bytes a sequence of that many tokens takes, as storage grows in steps."""
        rounded = -(-tokens // STEP) * STEP
        each = (size * min(rounded, most or rounded) for size, most in self.growing)
        return self.fixed + sum(each)

    def together(self, lengths: Iterable[int]) -> int:
        """Return how many bytes sequences take, the shorter ones of a batch padded to the longest one."""
        by_size: dict[int, list[int]] = {}
        for length in lengths:
            by_size.setdefault(table_of(length), []).append(length)
        return sum(len(batch) * self.bytes(max(batch)) for batch in by_size.values())
