"""One of the two models, and what it has read of a text."""

from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import trim_prompt_cache


class CachedModel:
    """A model with its key-value cache, and how many tokens of a text it has read."""

    def __init__(self, model: Any, cache: list[Any]) -> None:
        self._model = model
        self._cache = cache
        self.length = 0

    def prefill(self, tokens: mx.array, step_size: int) -> None:
        """Read tokens before the text."""
        for start in range(0, tokens.size, step_size):
            self._model(tokens[None, start : start + step_size], cache=self._cache)
            mx.eval([layer.state for layer in self._cache])
            mx.clear_cache()

    def read(self, tokens: mx.array) -> mx.array:
        """Read on; return the logits of what may follow, one row for each token."""
        self.length += tokens.size
        logits: mx.array = self._model(tokens[None], cache=self._cache)[0]
        return logits

    def unread(self, text: list[int]) -> mx.array:
        """Return what of the text it has not read."""
        return mx.array(text[self.length :], mx.uint32)

    def roll_back(self, length: int) -> None:
        """Take back what was read beyond `length` tokens of the text."""
        if self.length > length:
            trim_prompt_cache(self._cache, self.length - length)
            self.length = length
