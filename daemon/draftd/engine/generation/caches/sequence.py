"""The caches of one sequence in one model, as the loop and the prompt cache use them.

    caches = ModelCaches(model)            # once for each loaded model
    cache = caches.make()                  # or caches.adopt(layers) for layers that come back from mlx_lm's prompt cache
    cache.mark()                           # a round begins; what was read is settled
    model(tokens, cache=cache.layers)      # one pass or several
    cache.advance(tokens.size)             # after each pass
    cache.rollback(keep)                   # of the tokens since the mark, `keep` stay; the round is over

*For the loop.* Outside of a round, nothing is put aside: that is how a prompt is read. `mark` may follow `mark`.
After `rollback` the cache is at `position`, which lies below what was asked where `rereads` is true: the caller reads the
missing tokens again before the next `mark`, so that a round always begins with one unread token.

*For the prompt cache.* What is stored is `layers`, outside of a round; mlx_lm copies them (deepcopy) when it fetches. What
is fetched goes through `adopt`, as it may come from mlx_lm's batches, whose layers are of its own kinds. A stored entry
can serve a shorter prefix only where `can_cut` says so: plain layers any, windows and chunks `MARGIN` tokens less
(or any, while nothing has been dropped), recurrent layers none. For these a prompt cache must store whole checkpoints, which
`copy` makes in the middle of a prompt. Layers of the two models that have read different parts of a text fit only a
prefix that both can be cut to: let the one that is behind read on before its layers are stored.
"""

import copy
from dataclasses import dataclass
from typing import Any, Self

import mlx.core as mx
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache

from draftd.engine.generation.caches.layers import (
    Layers,
    adopted,
    can_rewind,
    is_state,
    leaves,
    mark,
    put_back,
    rewind,
    state_of,
    unknown_kinds,
)
from draftd.engine.generation.caches.recurrent import Call, RecordingArraysCache, observe

TRIED = [
    1,
    2,
    3,
    4,
    5,
]  # tokens that a model reads when it is found out whether its recurrent layers can read again
MAX_DIFFERENCE = (
    0.05  # of the largest number in a state: what the shape of a pass may change, in low precision
)


@dataclass
class Pass:
    """Where a pass began, the states before it, and what recurrent modules were called with in it."""

    start: int
    states: list[dict[str, Any]]
    calls: list[list[Call]]


class SequenceCache:
    """What one model has read of one sequence; `layers` is what the model is called with."""

    def __init__(self, layers: Layers, position: int, *, rereads: bool) -> None:
        self.layers = layers
        self.position = position
        self.rereads = rereads
        self._passes: list[Pass] = []  # since the mark; none outside of a round

    def mark(self) -> None:
        """Begin a round: `rollback` can come back to this position, and to any after it."""
        for leaf in leaves(self.layers):
            mark(leaf)
        self._passes = []
        self._begin_pass()

    def advance(self, tokens: int) -> None:
        """Say that the model has read so many tokens in a pass."""
        self.position += tokens
        for leaf in self._states():
            if isinstance(leaf, RecordingArraysCache):
                leaf.offset = self.position
        if self._passes:
            self._begin_pass()

    def rollback(self, keep: int) -> int:
        """Forget all but the first `keep` tokens since the mark; return the position that was reached.

        Raises ValueError without a mark, or where fewer than `keep` tokens were read since.
        """
        if not self._passes or not 0 <= keep <= self.position - self._passes[0].start:
            raise ValueError(f"no {keep} tokens were read since a mark")
        wanted = self._passes[0].start + keep
        begun = max((p for p in self._passes if p.start <= wanted), key=lambda p: p.start)
        reached = begun.start if self.rereads else wanted
        if reached < self.position:
            self._put_back(begun, reached)
        for leaf in leaves(self.layers):
            if not is_state(leaf):
                rewind(leaf, reached)
        self._end_round()
        self.position = reached
        return reached

    def can_cut(self, length: int) -> bool:
        """Whether the layers can be cut to a prefix of `length` tokens, outside of a round."""
        return all(can_rewind(leaf, length) for leaf in leaves(self.layers))

    def cut(self, length: int) -> None:
        """Cut the layers to a prefix, as `can_cut` says that they can be."""
        for leaf in leaves(self.layers):
            rewind(leaf, length)
        self.position = length

    def copy(self) -> Self:
        """Return a copy that can be stored while this one reads on; outside of a round."""
        return type(self)(copy.deepcopy(self.layers), self.position, rereads=self.rereads)

    def _states(self) -> list[Any]:
        return [leaf for leaf in leaves(self.layers) if is_state(leaf)]

    def _begin_pass(self) -> None:
        begun = Pass(self.position, [], [])
        for leaf in self._states():
            if isinstance(leaf, RecordingArraysCache):
                leaf.calls = None
            begun.states.append(state_of(leaf))
            begun.calls.append([])
            if isinstance(leaf, RecordingArraysCache):
                leaf.calls = begun.calls[-1]
        self._passes.append(begun)

    def _put_back(self, begun: Pass, reached: int) -> None:
        """Put back the states before a pass, and let the recurrent layers read again what stays of it."""
        following = next((p.start for p in self._passes if p.start > begun.start), self.position)
        for leaf, state, calls in zip(self._states(), begun.states, begun.calls, strict=True):
            put_back(leaf, state)
            if reached > begun.start:
                for call in calls:
                    call.again(following - begun.start, reached - begun.start)
                leaf.offset = reached

    def _end_round(self) -> None:
        self._passes = []
        for leaf in self._states():
            if isinstance(leaf, RecordingArraysCache):
                leaf.calls = None


class ModelCaches:
    """How the caches of one loaded model are made and taken back."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        layers = make_prompt_cache(model)
        self.number = len(
            layers
        )  # of layers with a cache, which may be fewer or more than the model has layers
        self.unknown = unknown_kinds(layers)
        self.supported = not self.unknown
        self.rereads = any(is_state(leaf) for leaf in leaves(layers)) and not self._reads_again()

    def make(self) -> SequenceCache:
        """Return the cache of a sequence that nothing was read of."""
        return self.adopt(make_prompt_cache(self._model), 0)

    def adopt(self, layers: Layers, position: int) -> SequenceCache:
        """Return the cache of a sequence for layers that have read `position` tokens of it.

        The layers themselves are not to be used any more, nor those among them that are of mlx_lm's kinds.
        """
        return SequenceCache([adopted(layer, position) for layer in layers], position, rereads=self.rereads)

    def _reads_again(self) -> bool:
        """Find out whether the model's recurrent layers come to the right state by reading a part of a pass again."""
        self.rereads = False
        if any(
            is_state(leaf)
            for leaf in leaves(self.make().layers)
            if not isinstance(leaf, RecordingArraysCache)
        ):
            return False
        observe(self._model)
        kept = len(TRIED) // 2
        taken_back, read = self.make(), self.make()
        try:
            taken_back.mark()
            self._read(taken_back, TRIED)
            taken_back.rollback(kept)
        except Exception:  # what a module raises that cannot be called so is its own
            return False
        self._read(read, TRIED[:kept])
        pairs = zip(taken_back._states(), read._states(), strict=True)
        return all(_alike(a.cache, b.cache) for a, b in pairs)

    def _read(self, cache: SequenceCache, tokens: list[int]) -> None:
        self._model(mx.array([tokens]), cache=cache.layers)
        cache.advance(len(tokens))


def _alike(states: list[mx.array], others: list[mx.array]) -> bool:
    """Whether two states are the same but for rounding."""
    for a, b in zip(states, others, strict=True):
        if (a is None) != (b is None):
            return False
        if a is not None and (a.shape != b.shape or not _close(a, b)):
            return False
    return True


def _close(a: mx.array, b: mx.array) -> bool:
    if not a.size:
        return True
    a, b = a.astype(mx.float32), b.astype(mx.float32)
    return bool((mx.abs(a - b).max() <= MAX_DIFFERENCE * mx.abs(b).max()).item())
