"""Requests whose draft length tunes itself: what each kind of them has learnt, and the prices that it goes by.

Requests are of one kind if they sample in the same way: then tokens are as easy to guess, and sampling takes as
long. The prices of a kind are measured at the end of its first generation, which drafts at a fixed length and
ends later by the time of some fifty tokens.
"""

import functools
from collections.abc import Callable, Generator
from typing import Any

import mlx.core as mx

from draftd.engine.generation.acceptance import Step, Steps
from draftd.engine.generation.calibration import measure
from draftd.engine.generation.policy import AdaptiveLength, DraftPolicy, FixedLength
from draftd.engine.generation.rules import distribution_of
from draftd.engine.generation.sampling import Distribution, Greedy

FIRST_LENGTH = 3  # of drafts as long as the prices are not known, and where mlx_lm's own loop drafts
MAX_KINDS = 16  # that are remembered: a client may ask for another temperature each time
PASSES = 6  # over all steps, to find the least disturbed time of each


class Tuning:
    """The policies of all kinds. `wanted` tells whether the present request is to be tuned."""

    def __init__(self, wanted: Callable[[], bool], on_error: Callable[[Exception], None]) -> None:
        self._wanted = wanted
        self._on_error = on_error
        self._policies: dict[tuple[Distribution | Greedy, int], DraftPolicy] = {}

    def tuned(self, steps: Steps) -> Steps:
        """Wrap a `speculative_generate_step` that takes a `policy`."""

        @functools.wraps(steps)
        def speculative_generate_step(*args: Any, **kwargs: Any) -> Generator[Step, None, None]:
            if not self._wanted():
                return steps(*args, **kwargs)
            if distribution_of(kwargs) is None:
                kwargs["num_draft_tokens"] = min(FIRST_LENGTH, kwargs["num_draft_tokens"])
                return steps(*args, **kwargs)
            return self._planned(steps, *args, **kwargs)

        return speculative_generate_step

    def _planned(self, steps: Steps, *args: Any, **kwargs: Any) -> Generator[Step, None, None]:
        most = kwargs["num_draft_tokens"]
        kind = distribution_of(kwargs), most
        policy = self._policies.get(kind)
        try:
            yield from steps(*args, policy=policy or FixedLength(min(FIRST_LENGTH, most)), **kwargs)
        finally:
            if policy is None:
                self._learn(kind, *args[1:4])

    def _learn(
        self, kind: tuple[Distribution | Greedy, int], model: Any, draft_model: Any, stream: Any
    ) -> None:
        while len(self._policies) >= MAX_KINDS:
            del self._policies[next(iter(self._policies))]
        distribution, most = kind
        self._policies[kind] = FixedLength(
            min(FIRST_LENGTH, most)
        )  # a measurement that fails is not tried again
        try:
            with mx.stream(stream):
                self._policies[kind] = AdaptiveLength(measure(distribution, model, draft_model, most, PASSES))
        except Exception as error:
            self._on_error(error)
