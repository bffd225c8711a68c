"""What all ranks but the first do: what the first one tells them, with their part of the target model."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from draftd.engine import prompt_cache, release
from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.caches.sequence import ModelCaches, SequenceCache
from draftd.engine.group.steps import Step, hear, share_tokens, taken_apart


class Follower:
    """Keeps the caches of the target model as the first rank has them, by their numbers."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._made = ModelCaches(model, tries=False)
        self._caches: dict[int, SequenceCache] = {}
        self._do: dict[Step, Callable[..., object]] = {
            Step.NEW: self._new,
            Step.COPY: self._copy,
            Step.ADOPT: self._adopt,
            Step.MARK: lambda number: self._caches[number].mark(),
            Step.ROLLBACK: lambda number, keep: self._caches[number].rollback(keep),
            Step.QUANTIZE: lambda number, *how: self._caches[number].quantize(Quantization(*how)),
            Step.DROP: lambda number: self._caches.pop(number, None),
            Step.READ: self._read,
        }

    def __len__(self) -> int:
        return len(self._caches)

    def do(self, step: Step, *numbers: int) -> None:
        """Do one step. What it raises has gone wrong at this rank only: the group has to begin anew."""
        self._do[step](*numbers)

    def _new(self, number: int) -> None:
        self._caches[number] = self._made.make()

    def _copy(self, number: int, copied: int) -> None:
        self._caches[copied] = self._caches[number].copy()

    def _adopt(self, number: int, length: int) -> None:
        cache = self._caches[number]
        prompt_cache.cut(cache.layers, cache.position, length)
        self._caches[number] = self._made.adopt(cache.layers, length)

    def _read(self, number: int, tokens: int, logits: int) -> None:
        cache = self._caches[number]
        read = cache.read(self._model, share_tokens(mx.zeros((1, tokens), mx.int32)), logits=bool(logits))
        mx.eval(read if logits else [layer.state for layer in cache.layers])
        cache.advance(tokens)
        if not logits:
            mx.clear_cache()  # as the first rank does between the steps of a long prompt


def follow(model: Any, until_woken: Callable[[], None]) -> None:
    """Do what the first rank tells, until something goes wrong."""
    follower = Follower(model)
    while True:
        for step, numbers in taken_apart(hear()):
            release.park()
            if step is Step.SLEEP:
                until_woken()
            else:
                follower.do(step, *numbers)
