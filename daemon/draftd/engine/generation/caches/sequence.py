"""The caches of one sequence in one model, as the loop and the prompt cache use them.

    caches = ModelCaches(model)            # once for each loaded model
    cache = caches.make()                  # or caches.adopt(layers, position), see below
    cache.mark()                           # a round begins; what was read before it is settled
    cache.read(model, tokens)              # one pass or several
    cache.advance(tokens.size)             # after each pass
    cache.rollback(keep)                   # of the tokens since the mark, `keep` stay; the round is over

*For the loop.* Outside of a round nothing is put aside: that is how a prompt is read. `mark` may follow `mark`.
`rollback` returns the position that was reached. It is what was asked for, except where `rereads` is true: there it
is the beginning of a pass, and the caller reads the missing tokens before the next `mark`, so that a round always
begins with one unread token.

*For the prompt cache.* What is stored is `layers`, outside of a round; mlx_lm copies them when it fetches. What is
fetched goes through `adopt`, also because mlx_lm's batches leave layers of its own kinds. A stored entry can serve
a shorter prefix only where `can_cut` says so: plain layers any; windows and chunks any while nothing has been
dropped, and `MARGIN` tokens less after that; recurrent layers none. For these, whole checkpoints are to be stored,
which `copy` makes in the middle of a prompt. The layers of a target and a draft model fit a common key only if both
have read it: the one that is behind reads on before they are stored.
"""

import copy
from dataclasses import dataclass, field
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
    unmark,
    will_rewind,
)
from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.caches.recurrent import Call, RecordingArraysCache, observe

INEXACT = {
    # It adds its mask of booleans to the scores, so that tokens see those after them.
    "mlx_lm.models.phi3small": "mlx_lm's phi3small reads several tokens at once otherwise than one by one",
}
# With these tokens it is found out whether recurrent layers can read again.
TRIED = [1, 2, 3, 4, 5]
# What the shape of a pass may change in a state, as a part of its largest number, also in low precision.
MAX_DIFFERENCE = 0.05


@dataclass
class Pass:
    """Where a pass began, the states before it, and what recurrent modules were called with in it."""

    start: int
    states: list[dict[str, Any]] = field(default_factory=list)
    calls: list[list[Call]] = field(default_factory=list)


class SequenceCache:
    """What one model has read of one sequence; `layers` is what the model is called with."""

    def __init__(self, layers: Layers, position: int, *, rereads: bool) -> None:
        self.layers = layers
        self.position = position
        self.rereads = rereads
        self._passes: list[Pass] = []  # since the mark, and the one that comes next; none outside of a round
        self._end_round()

    def mark(self) -> None:
        """Begin a round: `rollback` can come back to this position, and to any after it."""
        for leaf in leaves(self.layers):
            mark(leaf)
        self._passes = []
        self._begin_pass()

    def read(self, model: Any, tokens: mx.array, *, logits: bool = True) -> mx.array:
        """Have the model read tokens, (1, n), in one pass; return the logits, (1, n, vocabulary), still being
        computed.

        `logits` says whether they are wanted.
        """
        read: mx.array = model(tokens, cache=self.layers)
        return read

    def advance(self, tokens: int) -> None:
        """Note that the model has read this many tokens in a pass."""
        self.position += tokens
        for leaf in self._recording():
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
        index = max(i for i, begun in enumerate(self._passes) if begun.start <= wanted)
        reached = self._passes[index].start if self.rereads else wanted
        if reached < self.position:
            self._put_back(index, reached)
            self._rewind(reached)
        self._end_round()
        return reached

    def can_cut(self, length: int) -> bool:
        """Whether the layers can be cut to a prefix of `length` tokens, outside of a round."""
        return all(can_rewind(leaf, length) for leaf in leaves(self.layers))

    def will_cut(self, length: int, end: int) -> bool:
        """Whether the layers can be cut to so many tokens even when they have read on to `end`."""
        return all(will_rewind(leaf, length, end) for leaf in leaves(self.layers))

    def cut(self, length: int) -> None:
        """Cut the layers to a prefix; raise ValueError where `can_cut` says that they cannot be."""
        if not self.can_cut(length):
            raise ValueError(f"cannot go back from {self.position} to {length}")
        self._rewind(length)

    def quantize(self, quantization: Quantization) -> None:
        """Quantize what has got long enough for it, outside of a round."""
        quantization.apply(self.layers)

    def copy(self) -> Self:
        """Return a copy that can be stored while this one reads on."""
        return type(self)(copy.deepcopy(self.layers), self.position, rereads=self.rereads)

    def _states(self) -> list[Any]:
        return [leaf for leaf in leaves(self.layers) if is_state(leaf)]

    def _recording(self) -> list[RecordingArraysCache]:
        return [leaf for leaf in leaves(self.layers) if isinstance(leaf, RecordingArraysCache)]

    def _begin_pass(self) -> None:
        begun = Pass(self.position, [state_of(leaf) for leaf in self._states()])
        for leaf in self._recording():
            leaf.calls = []
            begun.calls.append(leaf.calls)
        self._passes.append(begun)

    def _put_back(self, index: int, reached: int) -> None:
        """Put back the states before a pass, and let the recurrent layers read again what stays of it."""
        begun, width = self._passes[index], self._passes[index + 1].start - self._passes[index].start
        for leaf, state in zip(self._states(), begun.states, strict=True):
            put_back(leaf, state)
        if reached == begun.start:
            return
        for leaf, calls in zip(self._recording(), begun.calls, strict=True):
            leaf.offset = reached
            for call in calls:
                call.again(width, reached - begun.start)

    def _rewind(self, position: int) -> None:
        for leaf in leaves(self.layers):
            rewind(leaf, position)
        self.position = position

    def _end_round(self) -> None:
        self._passes = []
        for leaf in leaves(self.layers):
            unmark(leaf)
        for leaf in self._recording():
            leaf.calls = None


class ModelCaches:
    """How the caches of one loaded model are made and taken back.

    With `tries` recurrent layers are tried out, by reading; else it is taken for granted that they reread.
    """

    why_alone = ""  # why no two sequences are read in one pass, whatever the model is like

    def __init__(self, model: nn.Module, *, tries: bool = True) -> None:
        self._model = model
        layers = make_prompt_cache(model)
        self.number = len(layers)  # of layers with a cache: not always that of the model's layers
        self.refusal = refusal_of(model, layers)  # why nothing may be drafted with this model; None if it may
        self.rereads = False
        if self.refusal is None and any(map(is_state, leaves(layers))):
            self.rereads = not tries or not self._reads_again()

    def make(self) -> SequenceCache:
        """Return the cache of a sequence of which nothing was read."""
        return self.adopt(make_prompt_cache(self._model), 0)

    def adopt(self, layers: Layers, position: int) -> SequenceCache:
        """Return the cache of a sequence whose first `position` tokens were read into these layers.

        The list is not to be used any more, nor layers of mlx_lm's own kinds in it: what counts are the result's.
        """
        return SequenceCache([adopted(layer, position) for layer in layers], position, rereads=self.rereads)

    def _reads_again(self) -> bool:
        """Find out whether the recurrent layers come to the right state by reading a part of a pass again."""
        kept = len(TRIED) // 2
        taken_back, read = self.make(), self.make()
        if len(taken_back._recording()) < len(taken_back._states()):
            return False
        observe(self._model)
        try:
            taken_back.mark()
            self._read(taken_back, TRIED)
            taken_back.rollback(kept)
            self._read(read, TRIED[:kept])
            pairs = zip(taken_back._states(), read._states(), strict=True)
            return all(_alike(a.cache, b.cache) for a, b in pairs)
        except (
            Exception
        ):  # whatever a module raises that cannot be called with a part of a pass, also when computed
            return False

    def _read(self, cache: SequenceCache, tokens: list[int]) -> None:
        self._model(mx.array([tokens]), cache=cache.layers)
        cache.advance(len(tokens))


def refusal_of(model: nn.Module, layers: Layers) -> str | None:
    """Say why drafting with a model would change its text, if it would."""
    if unknown := unknown_kinds(layers):
        return f"nothing is drafted: the model's layers keep {', '.join(unknown)}, which cannot be taken back"
    return INEXACT.get(type(model).__module__)


def _alike(states: list[mx.array | None], others: list[mx.array | None]) -> bool:
    """Whether two states are the same but for rounding."""
    return all(_close(a, b) for a, b in zip(states, others, strict=True))


def _close(a: mx.array | None, b: mx.array | None) -> bool:
    if a is None or b is None:
        return a is b
    if a.shape != b.shape:
        return False
    if not a.size:
        return True
    a, b = a.astype(mx.float32), b.astype(mx.float32)
    return bool((mx.abs(a - b).max() <= MAX_DIFFERENCE * mx.abs(b).max()).item())
