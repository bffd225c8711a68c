"""What the first rank does so that the others have the same in the target model's caches: see the package.

Each cache of the target model has a number, which is kept by one of its layers, since those are what the prompt
cache stores and copies. To copy that layer is to copy the cache, at every rank; where the layer is forgotten, so is
the cache. What is done with a cache without reading goes along with the next message.
"""

import time
import weakref
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx import nn

from draftd.engine.exits import leave
from draftd.engine.generation.caches.layers import Layers, adopted, leaves
from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.caches.sequence import ModelCaches, SequenceCache
from draftd.engine.group.steps import Step, share_tokens, tell
from draftd.engine.records import describe
from draftd.protocol import EXIT_GENERATION_DIED

SLEEP_AFTER_S = 1.0  # seconds without a request
ATTRIBUTE = "draftd_mirrored"  # of a layer


class Leader:
    """Tells the other ranks what to do. For the generating thread; `wake` has the launcher wake them."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._asleep = False
        self._waiting: list[int] = []  # numbers of steps that were not sent yet
        self._dropped: list[int] = []  # caches; whichever thread forgets the last of one
        self._last = 0
        self._since = time.monotonic()

    def note(self, step: Step, *numbers: int) -> None:
        """Have a step done before the next one that is sent."""
        self._waiting += [step, *numbers]

    def send(self, step: Step, *numbers: int) -> None:
        """Have a step done now, and what was noted before it."""
        while self._dropped:
            self.note(Step.DROP, self._dropped.pop())
        self.note(step, *numbers)
        if self._asleep:
            self._wake()
        self._asleep = step is Step.SLEEP
        self._since = time.monotonic()
        numbers_now, self._waiting = self._waiting, []
        tell(numbers_now)

    def idle(self) -> None:
        """There is nothing to do at this moment. After a while of that the others sleep."""
        if not self._asleep and time.monotonic() - self._since >= SLEEP_AFTER_S:
            self.send(Step.SLEEP)

    def number(self) -> "Mirrored":
        """Return the number of another cache."""
        self._last += 1
        return Mirrored(self, self._last)

    def forgotten(self, number: int) -> None:
        """The last of a cache is gone."""
        self._dropped.append(number)


class Mirrored:
    """The number of a cache. A copy of it is another one, of a cache that is a copy."""

    def __init__(self, leader: Leader, number: int) -> None:
        self.leader, self.number = leader, number
        weakref.finalize(self, leader.forgotten, number).atexit = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "Mirrored":
        copied = memo[id(self)] = self.leader.number()
        self.leader.note(Step.COPY, self.number, copied.number)
        return copied


class MirroredCache(SequenceCache):
    """A cache of the target model that is kept by all ranks. One of its layers has its number."""

    def __init__(self, layers: Layers, position: int, *, rereads: bool) -> None:
        super().__init__(layers, position, rereads=rereads)
        mirrored = number_of(layers)
        assert mirrored is not None, "whoever makes one gives it a number"
        self._mirrored = mirrored

    def mark(self) -> None:
        super().mark()
        self._note(Step.MARK)

    def rollback(self, keep: int) -> int:
        reached = super().rollback(keep)
        self._note(Step.ROLLBACK, keep)
        return reached

    def read(self, model: Any, tokens: mx.array, *, logits: bool = True) -> mx.array:
        """What goes wrong here has gone wrong at one rank only: the group has to begin anew."""
        try:
            self._mirrored.leader.send(Step.READ, self._mirrored.number, tokens.size, logits)
            read = super().read(model, share_tokens(tokens))
            # Passes have to begin in this order at all ranks, whenever what they compute is asked for.
            mx.async_eval(read if logits else [layer.state for layer in self.layers])  # type: ignore[no-untyped-call]
        except Exception as error:
            leave(EXIT_GENERATION_DIED, f"a pass of the group failed: {describe(error)}")
        return read

    def quantize(self, quantization: Quantization) -> None:
        before = list(self.layers)
        super().quantize(quantization)
        if any(new is not old for new, old in zip(self.layers, before, strict=True)):
            self._note(Step.QUANTIZE, quantization.bits, quantization.group_size, quantization.start)
            _give_number(self.layers, self._mirrored)

    def _note(self, step: Step, *numbers: int) -> None:
        self._mirrored.leader.note(step, self._mirrored.number, *numbers)


class MirroredCaches(ModelCaches):
    """Makes the caches of the target model."""

    why_alone = "requests have passes of their own: the model is on several machines"

    def __init__(self, model: nn.Module, leader: Leader) -> None:
        super().__init__(model, tries=False)
        self._leader = leader

    def adopt(self, layers: Layers, position: int) -> SequenceCache:
        mirrored = number_of(layers)
        if mirrored is None:
            mirrored = self._leader.number()
            self._leader.note(Step.NEW, mirrored.number)
        else:
            self._leader.note(Step.ADOPT, mirrored.number, position)
        own = [adopted(layer, position) for layer in layers]
        _give_number(own, mirrored)
        return MirroredCache(own, position, rereads=self.rereads)


def number_of(layers: Layers) -> Mirrored | None:
    """Return the number that the layers of a cache have; None for new ones."""
    found = (getattr(leaf, ATTRIBUTE, None) for leaf in leaves(layers))
    return next((mirrored for mirrored in found if mirrored is not None), None)


def _give_number(layers: Layers, mirrored: Mirrored) -> None:
    """Let a layer have it that is copied with all its attributes. Raise ValueError if there is none."""
    carrier = next((leaf for leaf in leaves(layers) if not hasattr(type(leaf), "__deepcopy__")), None)
    if carrier is None:
        raise ValueError("no layer of this model can tell which copy it is: it cannot be on several machines")
    setattr(carrier, ATTRIBUTE, mirrored)


_leading: list[Leader] = []  # the leader of this process, if it is the first rank of a group


def lead(leader: Leader) -> None:
    """Be the first rank of a group from now on."""
    _leading.append(leader)


def caches_of(model: nn.Module) -> ModelCaches:
    """Return what makes the caches of the target model."""
    return MirroredCaches(model, _leading[0]) if _leading else ModelCaches(model)
