"""One of the two models, and what it has read of a text."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx

from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.caches.ragged import RaggedBatch, RaggedRow, can_join, kinds
from draftd.engine.generation.caches.sequence import SequenceCache
from draftd.engine.generation.rows import Rows, Tokens, lines_of
from draftd.engine.generation.turns import Pace

Progress = Callable[[int], None]


class Reader:
    """A model with its cache of one text. Positions count the tokens of the text from its beginning.

    `step` is how many tokens are read in one pass where many are to be read; `pace` may make it fewer. Between
    passes layers are quantized if `quantization` says so.
    """

    def __init__(
        self,
        model: Any,
        cache: SequenceCache | RaggedRow,
        step: int,
        quantization: Quantization | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._model = model
        self._step = step
        self.quantization = quantization
        self.pace = pace or Pace()
        self._marked: int | None = None
        self._in_step = False
        self.cache: SequenceCache | RaggedRow = cache

    @property
    def position(self) -> int:
        """Tokens of the text that it has read."""
        return self.cache.position

    def unread(self, text: Sequence[int]) -> int:
        """Return how many tokens of a text it has not read."""
        return len(text) - self.position

    def most_at_once(self, limit: int) -> int:
        """Return how many tokens, up to `limit`, a pass may have that shows each what it would see alone."""
        width = self.cache.batch.max_width if isinstance(self.cache, RaggedRow) else None
        until = self.quantization.until(self.position) if self.quantization else None
        return min(most for most in (limit, width, until) if most is not None)

    def read(self, tokens: Tokens, *, logits: bool = True) -> Rows:
        """Read on; return the logits of what may follow, a row for each token. Nothing is waited for.

        `logits` says whether they are wanted.
        """
        count = len(tokens)
        if isinstance(self.cache, RaggedRow):
            rows = self.cache.batch.read({self.cache: tokens})[self.cache]
        else:
            line = lines_of([tokens], count)
            rows = Rows(self.cache.read(self._model, line, logits=logits), line, 0, 0, count)
        self.advance(count)
        return rows

    def advance(self, tokens: int) -> None:
        """Note that this many tokens were read, by `read` or with those of others."""
        self.cache.advance(tokens)
        if self._marked is None and not self._in_step:
            self._quantize()

    @property
    def can_join(self) -> bool:
        """Whether it can read together with others that read with the same model."""
        return isinstance(self.cache, RaggedRow) or can_join(self.cache.layers)

    @property
    def kinds(self) -> tuple[Any, ...]:
        """What others that read in the same batch must have in common with it."""
        return self.cache.batch.kinds if isinstance(self.cache, RaggedRow) else kinds(self.cache.layers)

    @property
    def is_joined(self) -> bool:
        """Whether it reads in a batch."""
        return isinstance(self.cache, RaggedRow)

    @property
    def rows(self) -> int:
        """How many sequences its last pass was for."""
        return self.cache.batch.readers if isinstance(self.cache, RaggedRow) else 1

    def join(self, batch: RaggedBatch) -> None:
        """Read in a row of a batch from here on; between two rounds. It must not read in another one."""
        self.cache = batch.join(self.cache.layers, self.position)

    def leave(self) -> None:
        """Read alone from here on; between two rounds."""
        if isinstance(self.cache, RaggedRow):
            row, layers, position = self.cache, self.cache.layers, self.position
            row.batch.leave(row)
            self.cache = SequenceCache(layers, position, rereads=False)

    def close(self) -> None:
        """Give up its place in a batch, and what it has read there."""
        if isinstance(self.cache, RaggedRow):
            self.cache.batch.leave(self.cache)

    def catch_up(self, text: Sequence[int], progress: Progress = lambda _: None) -> None:
        """Read the text but for its last token, a step at a time; `progress` is told how many each step has read.

        Whatever `progress` raises ends the reading, with the cache in order.
        """
        self.read_to(len(text) - 1, text, progress)

    def read_to(self, end: int, text: Sequence[int], progress: Progress = lambda _: None) -> None:
        """Read the first `end` tokens of the text, as far as they are unread; see `catch_up`."""
        for count in self.steps_to(end, text):
            progress(count)

    def steps_to(self, end: int, text: Sequence[int]) -> Iterator[int]:
        """Read the first `end` tokens of the text; yield after each step how many it has read.

        Between two steps the cache is in order, and others may use the device. It reads alone from here on: others
        would be padded to the length of its steps. Where `pace` wants shorter ones, layers are quantized no sooner.
        """
        step_end = 0
        while end > self.position:
            self.leave()
            start = self.position
            step_end = step_end if start < step_end else min(end, start + self._step)
            count = min(step_end - start, self.pace.tokens(self._step))
            self._in_step = start + count < step_end
            began = time.perf_counter()
            self.read(text[start : start + count], logits=False)
            mx.eval([layer.state for layer in self.cache.layers])
            self.pace.took(count, time.perf_counter() - began)
            mx.clear_cache()
            yield count

    def begin_round(self, text: Sequence[int]) -> list[int]:
        """Return what of the text is to be read first; what is read from here on can be forgotten."""
        if self.cache.rereads:  # it can only come back to where a pass began
            self.catch_up(text)
        self._quantize()
        self.cache.mark()
        self._marked = self.position
        return list(text[self.position :])

    def end_round(self, length: int) -> None:
        """Forget what was read beyond `length` tokens of the text, if a round has begun."""
        if self._marked is not None:
            self.cache.rollback(min(length, self.position) - self._marked)
            self._marked = None

    def _quantize(self) -> None:
        if not self.quantization:
            return
        joined = isinstance(self.cache, RaggedRow) and self.cache.batch.has_plain
        if joined and self.position >= self.quantization.first:
            self.leave()
        if isinstance(self.cache, SequenceCache):
            self.cache.quantize(self.quantization)
