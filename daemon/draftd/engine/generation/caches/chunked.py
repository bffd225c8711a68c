"""The cache of a layer that sees the chunk of the text in which a token stands (Llama 4).

mlx_lm's keeps the last `chunk_size` tokens, and so cannot go back over the border of a chunk, though it says so.
"""

from typing import Any, Self

from mlx_lm.models.cache import ChunkedKVCache

from draftd.engine.generation.caches.rewindable import Rewindable
from draftd.engine.generation.caches.sliding import MARGIN


class RewindableChunkedKVCache(Rewindable, ChunkedKVCache):  # type: ignore[misc]  # mlx_lm has no types
    """Keys and values of the last chunk, and of the one that a rollback to the mark would need.

    The model masks by position, and asks the first of its layers where its rows begin: all drop the same.
    """

    keys: Any
    values: Any
    start_position: int

    def __init__(self, chunk_size: int) -> None:
        super().__init__(chunk_size)

    @classmethod
    def of(cls, cache: ChunkedKVCache) -> Self:
        """Return the counterpart of mlx_lm's cache, which is not to be used any more."""
        new = cls(cache.chunk_size)
        new.state = cache.state
        return new

    @property
    def start(self) -> int:
        return self.start_position

    @property
    def kind(self) -> str:
        return f"a chunk of {self.chunk_size}"

    def can_rewind(self, position: int) -> bool:
        """Whether the chunk of the token at `position` is here from its beginning."""
        return position <= self.offset and self.start_position <= self._chunk(position)

    def maybe_trim_front(self) -> None:
        """Drop whole chunks that are not needed any more; the model calls this before each pass."""
        first = self._chunk((self.offset if self._mark is None else self._mark) - MARGIN)
        if (surplus := first - self.start_position) <= 0:
            return
        rows = slice(surplus, self.offset - self.start_position)
        self.keys, self.values = self.keys[..., rows, :], self.values[..., rows, :]
        self.start_position = first

    def _chunk(self, position: int) -> int:
        """Where the chunk of the token at `position` begins."""
        return int(position // self.chunk_size * self.chunk_size)
