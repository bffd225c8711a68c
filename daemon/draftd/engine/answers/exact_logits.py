"""Log-probabilities of batched requests in full precision.

mlx_lm normalizes logits in the precision of the model. In bfloat16 a log-probability is then right to a sixteenth
only: 0 for what has a probability of 0.95. The logits themselves are exact, so the batch gets them in float32.
"""

import functools
from collections.abc import Callable
from typing import Any

import mlx.core as mx


class ExactLogits:
    """A model whose logits are in float32. Everything else about it is the model's own."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._model(*args, **kwargs).astype(mx.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def on_exact_logits(make: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap mlx_lm's BatchGenerator, so that it works with such a model."""

    @functools.wraps(make, updated=())
    def making(model: Any, *args: Any, **kwargs: Any) -> Any:
        return make(ExactLogits(model), *args, **kwargs)

    return making
