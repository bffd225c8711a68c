"""Rows of one batch: each reads what it would read alone, whatever the others keep, and whoever joins or leaves."""

import random
from functools import cache
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache, make_prompt_cache

from draftd.engine.generation.caches.ragged import RaggedBatch, RaggedRow, can_join, is_exact
from tests.engine.architectures.models import make


@cache
def model(name: str) -> Any:
    return make(name)


def logits_alone(text: list[int], name: str = "qwen2") -> mx.array:
    """Return those of all places of a text."""
    logits: mx.array = model(name)(mx.array([text]), cache=make_prompt_cache(model(name)))[0]
    return logits


def read_plainly(text: list[int]) -> list[Any]:
    layers: list[Any] = make_prompt_cache(model("qwen2"))
    if text:
        model("qwen2")(mx.array([text]), cache=layers)
    return layers


def close(a: mx.array, b: mx.array) -> bool:
    return bool(mx.allclose(a, b, atol=1e-4, rtol=1e-3).item())


@pytest.mark.parametrize("seed", range(6))
def test_rows_read_what_they_would_alone_through_joins_rollbacks_and_leaves(seed: int) -> None:
    rng = random.Random(seed)
    batch = RaggedBatch(model("qwen2"))
    texts: dict[RaggedRow, list[int]] = {}

    def words(count: int) -> list[int]:
        return [rng.randrange(4, 250) for _ in range(count)]

    for _ in range(40):
        if len(texts) < 2 or (rng.random() < 0.2 and len(texts) < 5):
            text = words(rng.choice([0, 1, 5, 300]))
            texts[batch.join(read_plainly(text), len(text))] = text
        if rng.random() < 0.15:
            row = rng.choice(list(texts))
            text, layers = texts.pop(row), row.layers
            batch.leave(row)
            after = words(3)
            assert close(model("qwen2")(mx.array([after]), cache=layers)[0], logits_alone(text + after)[-3:])
            continue
        reading = {row: words(rng.randint(1, 6)) for row in texts if rng.random() < 0.8}
        for row in reading:
            row.mark()
        read = (
            batch.read({row: mx.array(part, mx.uint32) for row, part in reading.items()}) if reading else {}
        )
        for row, part in reading.items():
            assert close(read[row], logits_alone(texts[row] + part)[-len(part) :])
            row.advance(len(part))
            keep = rng.randint(0, len(part))
            assert row.rollback(keep) == len(texts[row]) + keep
            texts[row] = texts[row] + part[:keep]
    assert [row.position for row in batch.rows] == [len(texts[row]) for row in batch.rows]


def test_what_a_row_gives_away_is_a_copy() -> None:
    batch = RaggedBatch(model("qwen2"))
    row = batch.join(read_plainly([5, 6, 7]), 3)
    layers = row.layers
    batch.read({row: mx.array([8, 9], mx.uint32)})
    row.advance(2)
    assert [layer.offset for layer in layers] == [3] * len(layers)
    assert close(model("qwen2")(mx.array([[8]]), cache=layers)[0, -1], logits_alone([5, 6, 7, 8])[-1])


def test_no_more_is_taken_back_than_was_read_in_the_round() -> None:
    row = RaggedBatch(model("qwen2")).join(read_plainly([5, 6, 7]), 3)
    with pytest.raises(ValueError, match="no 0 tokens were read"):
        row.rollback(0)
    row.mark()
    with pytest.raises(ValueError, match="no 1 tokens were read"):
        row.rollback(1)


@pytest.mark.parametrize(("name", "joins"), [("qwen2", True), ("gemma3_text", False), ("qwen3_next", False)])
def test_plain_layers_can_join(name: str, joins: bool) -> None:
    assert can_join(make_prompt_cache(model(name))) is joins


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        *(
            (name, True)
            for name in ("qwen2", "qwen3", "gpt2", "phi3", "olmo2", "mixtral", "deepseek_v2", "cohere")
        ),
        ("gemma2", False),  # it adds an axis to the keys that a mask for each row does not have
        ("gemma3_text", False),
    ],
)
def test_a_model_is_tried_out_before_it_reads_rows(name: str, exact: bool) -> None:
    assert is_exact(model(name)) is exact


class Forgetful:
    """A model that takes every row to be as long as the first one."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.layers = inner.layers

    def __call__(self, tokens: mx.array, cache: Any) -> Any:
        if not isinstance(cache[0], KVCache):
            batch = cache[0]._batch
            batch.offset = mx.broadcast_to(batch.offset[:1], batch.offset.shape)
        return self._inner(tokens, cache=cache)


def test_a_model_that_reads_rows_wrongly_is_found_out() -> None:
    assert is_exact(Forgetful(model("qwen2"))) is False
