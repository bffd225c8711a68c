"""The cache of a layer that sees the chunk of the text in which a token stands (Llama 4).

mlx_lm's keeps the last `chunk_size` tokens, and so cannot go back over the border of a chunk, though it says so.
"""

from typing import Any, Self

from mlx_lm.models.cache import ChunkedKVCache

from draftd.engine.generation.caches.sliding import MARGIN


class RewindableChunkedKVCache(ChunkedKVCache):  # type: ignore[misc]  # mlx_lm has no types
    """Keys and values of the last chunk, and of the one that a rollback to the mark would need.

    The model masks by position, and asks the first of its layers where its rows begin: all drop the same.
    """

    keys: Any
    values: Any
    start_position: int

    def __init__(self, chunk_size: int) -> None:
        super().__init__(chunk_size)
        self._mark: int | None = None

    @classmethod
    def of(cls, cache: ChunkedKVCache) -> Self:
        """Return the counterpart of mlx_lm's cache, which is not to be used any more."""
        new = cls(cache.chunk_size)
        new.state = cache.state
        return new

    def mark(self) -> None:
        """From here on keep what is needed to come back to this position."""
        self._mark = self.offset

    def unmark(self) -> None:
        """Keep only what is needed to read on, and `MARGIN` tokens more."""
        self._mark = None

    def can_rewind(self, position: int) -> bool:
        """Whether the chunk of the token at `position` is here from its beginning."""
        return position <= self.offset and self.start_position <= self._chunk(position)

    def rewind(self, position: int) -> None:
        """Forget what was read from `position` on."""
        self.offset = position

    def is_trimmable(self) -> bool:
        """Whether any number of tokens can be taken back, which is what mlx_lm takes it for."""
        return not self.start_position

    def trim(self, n: int) -> int:
        """Take back `n` tokens; raise ValueError if what they stood on has been dropped."""
        position = self.offset - min(n, self.offset)
        if not self.can_rewind(position):
            raise ValueError(f"a chunk of {self.chunk_size} cannot go back from {self.offset} to {position}")
        taken = self.offset - position
        self.rewind(position)
        return taken

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
