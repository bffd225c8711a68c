"""Rows of one batch: each reads what it would read alone, whatever the others keep, and whoever joins or leaves."""

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache, QuantizedKVCache, RotatingKVCache

from draftd.engine.generation.caches.layers import leaves
from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.caches.ragged import RaggedBatch, RaggedRow, can_join
from draftd.engine.generation.caches.ragged_trial import is_exact
from draftd.engine.generation.caches.recurrent import Call
from draftd.engine.generation.caches.sequence import ModelCaches, SequenceCache
from draftd.engine.generation.caches.sliding import MARGIN, SlidingKVCache
from tests.engine.architectures.models import make

QUANTIZED = "qwen2, quantized"
KINDS = ["qwen2", QUANTIZED, "gemma3_text", "qwen3_next", "lfm2", "falcon_h1"]
"""Plain, quantized and sliding layers, states beside plain layers, and lists of both."""


@cache
def model(name: str) -> Any:
    if name == QUANTIZED:
        return make("qwen2", hidden_size=64, num_attention_heads=2, num_key_value_heads=1)
    return make(name)


@cache
def caches(name: str) -> ModelCaches:
    return ModelCaches(model(name))


def empty(name: str) -> SequenceCache:
    made = caches(name).make()
    if name == QUANTIZED:
        made.layers[:] = [QuantizedKVCache(group_size=32, bits=8) for _ in made.layers]
    return made


def read_alone(text: list[int], name: str) -> SequenceCache:
    """Return the cache of a sequence that has read a text."""
    made = empty(name)
    if text:
        model(name)(mx.array([text]), cache=made.layers)
        made.advance(len(text))
    return made


def logits_alone(text: list[int], name: str = "qwen2") -> mx.array:
    """Return those of all places of a text."""
    logits: mx.array = model(name)(mx.array([text]), cache=empty(name).layers)[0]
    return logits


def close(a: mx.array, b: mx.array) -> bool:
    return bool((mx.abs(a - b).max() <= 1e-3 * mx.abs(b).max()).item())


class Walk:
    """Rows that read, take back, come and go as chance wants it; all that they read is compared."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.rng = name, random.Random(seed)
        self.batch = RaggedBatch(model(name), empty(name).layers)
        self.texts: dict[RaggedRow, list[int]] = {}

    def words(self, count: int) -> list[int]:
        return [self.rng.randrange(4, 250) for _ in range(count)]

    def step(self) -> None:
        if len(self.texts) < 2 or (self.rng.random() < 0.2 and len(self.texts) < 5):
            text = self.words(self.rng.choice([0, 1, 5, 190, 300]))
            alone = read_alone(text, self.name)
            self.texts[self.batch.join(alone.layers, alone.position)] = text
        if self.rng.random() < 0.15:
            self.leave(self.rng.choice(list(self.texts)))
        self.round([row for row in self.texts if self.rng.random() < 0.8])

    def leave(self, row: RaggedRow) -> None:
        """Let a row leave, and read on alone."""
        text, layers, after = self.texts.pop(row), row.layers, self.words(3)
        self.batch.leave(row)
        alone = caches(self.name).adopt(layers, len(text))
        alone.mark()
        logits = model(self.name)(mx.array([after]), cache=alone.layers)[0]
        assert close(logits, logits_alone(text + after, self.name)[-3:])

    def round(self, rows: list[RaggedRow]) -> None:
        """Let some rows read in one to three passes, and some of them take back a part of it then."""
        marked = [row for row in rows if self.rng.random() < 0.7]
        for row in marked:
            row.mark()
        before = {row: list(self.texts[row]) for row in rows}
        for _ in range(self.rng.choice([1, 1, 2, 3])):
            reading = {row: self.words(self.rng.randint(1, 6)) for row in rows if self.rng.random() < 0.8}
            self.read(reading)
        for row in marked:
            if self.rng.random() < 0.05:  # in the middle of a round, as after an error
                del self.texts[row]
                self.batch.leave(row)
                continue
            keep = self.rng.randint(0, len(self.texts[row]) - len(before[row]))
            assert row.rollback(keep) == len(before[row]) + keep
            self.texts[row] = self.texts[row][: len(before[row]) + keep]
            if self.rng.random() < 0.1:
                self.leave(row)

    def read(self, reading: dict[RaggedRow, list[int]]) -> None:
        if not reading:
            return
        logits = self.batch.read(reading)
        for row, part in reading.items():
            self.texts[row] = self.texts[row] + part
            row.advance(len(part))
            assert close(logits[row].array, logits_alone(self.texts[row], self.name)[-len(part) :])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_rows_read_what_they_would_alone_through_joins_rollbacks_and_leaves(name: str, seed: int) -> None:
    walk = Walk(name, seed)
    for _ in range(25):
        walk.step()
    for row, text in walk.texts.items():
        assert row.position == len(text)


@pytest.mark.parametrize("name", KINDS)
def test_what_a_row_gives_away_is_a_copy(name: str) -> None:
    batch = RaggedBatch(model(name), empty(name).layers)
    row = batch.join(read_alone([5, 6, 7], name).layers, 3)
    layers = row.layers
    batch.read({row: [8, 9]})
    row.advance(2)
    assert {leaf.offset for leaf in leaves(layers)} == {3}
    alone = caches(name).adopt(layers, 3)
    logits = model(name)(mx.array([[8]]), cache=alone.layers)
    assert close(logits[0, -1], logits_alone([5, 6, 7, 8], name)[-1])


def test_no_more_is_taken_back_than_was_read_in_the_round() -> None:
    row = RaggedBatch(model("qwen2"), empty("qwen2").layers).join(read_alone([5, 6, 7], "qwen2").layers, 3)
    with pytest.raises(ValueError, match="no 0 tokens were read"):
        row.rollback(0)
    row.mark()
    with pytest.raises(ValueError, match="no 1 tokens were read"):
        row.rollback(1)


def test_a_window_takes_no_more_memory_than_its_ring() -> None:
    name, text = "gemma3_text", [7] * 300
    batch = RaggedBatch(model(name), empty(name).layers)
    row = batch.join(read_alone(text, name).layers, 300)
    sizes = []
    for _ in range(4):
        batch.read({row: [7] * 60})
        row.advance(60)
        sizes.append([leaf.nbytes for leaf in leaves(batch.layers)])
    kinds = [type(leaf) is SlidingKVCache for leaf in empty(name).layers]
    grown = [last > first for first, last in zip(sizes[0], sizes[-1], strict=True)]
    assert grown == [not slides for slides in kinds]


WIDE = 100
"""Tokens of the windows in the tests of what they have of a text."""


def telling(tokens: mx.array, cache: Any) -> mx.array:
    """Read tokens as a model of one window of which keys and values are the tokens."""
    told = tokens[:, None, :, None].astype(mx.float32)
    cache[0].update_and_fetch(told, told)
    return tokens[..., None]


def window(start: int, position: int, sign: int = 1) -> SlidingKVCache:
    """Return a window that has the tokens from `start` on of a text that is the numbers from 1 on."""
    told = sign * mx.arange(start + 1, position + 1, dtype=mx.float32)[None, None, :, None]
    return SlidingKVCache.with_rows(WIDE, start, (told, told))


def turned_over(position: int) -> SlidingKVCache:
    """Return a window as mlx_lm's own batches leave one after a text of several times its length."""
    layer = RotatingKVCache(WIDE)
    for token in range(1, position + 1):
        told = mx.full((1, 1, 1, 1), token, mx.float32)
        layer.update_and_fetch(told, told)
    return SlidingKVCache.of(layer)


def assert_tells_the_truth(row: RaggedRow, first: int) -> None:
    """A window that comes out has the tokens that it says, from the first one on that went in, or less."""
    layer = row.layers[0]
    start = max(first, row.position - WIDE + 1 - MARGIN)
    assert (layer.start, layer.offset) == (start, row.position)
    for rows in layer.rows() if row.position else ():
        assert rows.flatten().tolist() == list(range(start + 1, row.position + 1))


@pytest.mark.parametrize("is_moved", [False, True])
@pytest.mark.parametrize(
    ("joins", "first", "position"),
    [
        (lambda: window(101, 200), 101, 200),  # a prompt that was cut
        (lambda: window(0, 200), 37, 200),
        (lambda: turned_over(300), 200, 300),
        (lambda: SlidingKVCache(WIDE), 0, 0),
    ],
)
def test_a_window_comes_out_with_no_more_than_went_in_and_was_read_since(
    joins: Callable[[], SlidingKVCache], first: int, position: int, is_moved: bool
) -> None:
    batch = RaggedBatch(telling, [SlidingKVCache(WIDE)])
    others = [batch.join([window(0, length, sign=-1)], length) for length in (290, 500)]
    for other in others if not is_moved else others[1:]:
        batch.leave(other)
    row = batch.join([joins()], position)
    if is_moved:
        batch.leave(others[0])
    assert row.index == 0
    for count in (0, 1, 40, 90, 100, 128, 128):
        if count:
            batch.read({row: range(row.position + 1, row.position + count + 1)})
            row.advance(count)
        assert_tells_the_truth(row, first)


def test_a_window_can_be_cut_after_a_batch_only_where_it_could_before() -> None:
    batch = RaggedBatch(telling, [SlidingKVCache(WIDE)])
    batch.leave(batch.join([window(0, 500, sign=-1)], 500))
    for alone in (window(101, 200), window(60, 200)):
        layer = batch.join([alone], 200).layers[0]
        for position in range(201):
            assert layer.can_rewind(position) is alone.can_rewind(position)


class Breaking:
    """A model that reads, and raises then where it is to break."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.breaks = False

    def __call__(self, tokens: mx.array, cache: Any) -> Any:
        logits = self._inner(tokens, cache=cache)
        if self.breaks:
            raise RuntimeError("no memory")
        return logits


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("is_in_round", [False, True])
def test_a_pass_that_breaks_leaves_all_rows_as_they_were(name: str, is_in_round: bool) -> None:
    breaking = Breaking(model(name))
    batch = RaggedBatch(breaking, empty(name).layers)
    texts = ([5, 6, 7], [9, 8], [4, 4, 5, 6])
    rows = [batch.join(read_alone(text, name).layers, len(text)) for text in texts]
    for row in rows if is_in_round else ():
        row.mark()
    breaking.breaks = True
    with pytest.raises(RuntimeError, match="no memory"):
        batch.read({rows[0]: [20, 21, 22], rows[1]: [23]})
    breaking.breaks = False
    for row, text in zip(rows, texts, strict=True):
        logits = batch.read({row: [30, 31]})[row].array
        assert close(logits, logits_alone([*text, 30, 31], name)[-2:])
        row.advance(2)
        if is_in_round:
            row.rollback(1)
    for row, text in zip(rows, texts, strict=True):
        kept = [*text, 30] if is_in_round else [*text, 30, 31]
        logits = batch.read({row: [32]})[row].array
        assert close(logits, logits_alone([*kept, 32], name)[-1:])
        row.advance(1)


def test_recurrent_layers_are_called_once_more_for_all_rows_and_only_where_a_part_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[int] = []
    again = Call.again

    def noting(self: Any, width: int, kept: int, masks: Any = (None, None)) -> None:
        called.append(kept)
        again(self, width, kept, masks)

    monkeypatch.setattr(Call, "again", noting)
    name = "qwen3_next"
    batch = RaggedBatch(model(name), empty(name).layers)
    rows = [batch.join(read_alone([5, 6, 7], name).layers, 3) for _ in range(3)]

    def round_keeping(*kept: int) -> int:
        called.clear()
        for row in rows:
            row.mark()
        batch.read({row: [8, 9, 4, 3] for row in rows})
        for row, keep in zip(rows, kept, strict=True):
            row.advance(4)
            row.rollback(keep)
        batch.read({row: [2] for row in rows})
        for row in rows:
            row.advance(1)
        return len(called)

    layers = sum(type(leaf) is not KVCache for leaf in leaves(caches(name).make().layers))
    assert round_keeping(4, 4, 4) == 0
    assert round_keeping(4, 1, 3) == layers
    assert set(called) == {4}
    assert round_keeping(0, 0, 0) == 0


@pytest.mark.parametrize(
    ("name", "joins"), [("qwen2", True), ("gemma3_text", True), ("qwen3_next", True), ("llama4", False)]
)
def test_layers_that_can_join(name: str, joins: bool) -> None:
    assert can_join(empty(name).layers) is joins


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        *(
            (name, True)
            for name in ("qwen2", "qwen3", "gpt2", "phi3", "olmo2", "mixtral", "deepseek_v2", "cohere")
        ),
        *((name, True) for name in ("gemma3_text", "gemma3n", "gpt_oss", "cohere2")),
        *((name, True) for name in ("qwen3_next", "qwen3_5", "lfm2", "falcon_h1", "kimi_linear")),
        ("gemma2", False),  # it adds an axis to the keys that a mask for each row does not have
        ("jamba", False),  # its states go on over the padding
        ("llama4", False),
    ],
)
def test_a_model_is_tried_out_before_it_reads_rows(name: str, exact: bool) -> None:
    made = make(name)
    assert is_exact(made, ModelCaches(made).make) is exact


def test_a_model_is_tried_out_with_quantized_layers() -> None:
    quantization = Quantization(bits=8, group_size=32, start=0)
    assert is_exact(model(QUANTIZED), caches(QUANTIZED).make, quantization)


class Forgetful:
    """A model that takes every row to be as long as the first one."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.layers = inner.layers

    def __call__(self, tokens: mx.array, cache: Any) -> Any:
        if not isinstance(cache[0], KVCache) and len(tokens) > 1:
            shape = cache[0].shape
            shape.offset = mx.broadcast_to(shape.offset[:1], shape.offset.shape)
        return self._inner(tokens, cache=cache)


def test_a_model_that_reads_rows_wrongly_is_found_out() -> None:
    assert is_exact(Forgetful(model("qwen2")), caches("qwen2").make) is False


class Noisy:
    """A model whose logits depend on the shape of the pass, as on a GPU in low precision."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.layers = inner.layers

    def __call__(self, tokens: mx.array, cache: Any) -> Any:
        logits = self._inner(tokens, cache=cache)
        noise = mx.random.normal(logits.shape, key=mx.random.key(sum(tokens.shape)))
        return logits + 0.02 * mx.abs(logits).max() * noise


def test_a_model_is_not_refused_for_the_noise_of_its_device() -> None:
    assert is_exact(Noisy(model("qwen2")), caches("qwen2").make)


def test_a_model_that_reads_rows_wrongly_is_found_out_in_noise_too() -> None:
    assert is_exact(Noisy(Forgetful(model("qwen2"))), caches("qwen2").make) is False
