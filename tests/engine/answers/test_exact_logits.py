"""The model that a batch works with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mlx.core as mx

from draftd.engine.answers.exact_logits import on_exact_logits


class Model:
    layers = (1, 2)

    def __call__(self, tokens: Any, cache: Any = None) -> Any:
        return tokens.astype(mx.bfloat16) + cache


def test_a_batch_gets_logits_in_full_precision_and_all_else_of_the_model() -> None:
    batch = on_exact_logits(lambda model, *, stream: SimpleNamespace(model=model, stream=stream))
    made = batch(Model(), stream=7)
    logits = made.model(mx.array([1]), cache=2)
    assert (logits.dtype, logits.item()) == (mx.float32, 3)
    assert (made.model.layers, made.stream) == ((1, 2), 7)
