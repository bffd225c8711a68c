"""Requests whose draft length tunes itself: what each kind of them has learnt, and the prices that it goes by.

Requests are of one kind if they sample in the same way: then tokens are as easy to guess, and sampling takes as
long. The prices of a kind are measured at the end of its first generation, which drafts at a fixed length, and
measured again at the end of some more: each ends later by the time of some tens of tokens.
"""

import functools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from daemon.engine.acceptance import Step, Steps
from daemon.engine.draft_length import Fixed, Plan, Tuned
from daemon.engine.rules import distribution_of
from daemon.engine.sampling import Distribution, Greedy
from daemon.engine.timing import Timings

FIRST_LENGTH = 3  # of drafts as long as the prices are not known, and where mlx_lm's own loop drafts
MOST_KINDS = 16  # that are remembered: a client may ask for another temperature each time
FIRST_PASSES, MOST_PASSES = 3, 10  # over the steps: after the first generation, and in all, one after each


@dataclass(slots=True)
class _Kind:
    """What is known of requests that sample in the same way."""

    timings: Timings
    plan: Plan
    settled: bool = False  # whether there is nothing more to be measured


class Tuning:
    """The plans of all kinds. `wanted` tells whether the present request is to be tuned."""

    def __init__(self, wanted: Callable[[], bool], on_error: Callable[[Exception], None]) -> None:
        self._wanted = wanted
        self._on_error = on_error
        self._kinds: dict[tuple[Distribution | Greedy, int], _Kind] = {}

    def tuned(self, steps: Steps) -> Steps:
        """Wrap a `speculative_generate_step` that takes a `plan`."""

        @functools.wraps(steps)
        def speculative_generate_step(*args: Any, **kwargs: Any) -> Generator[Step, None, None]:
            if not self._wanted():
                return steps(*args, **kwargs)
            distribution = distribution_of(kwargs)
            if distribution is None:
                kwargs["num_draft_tokens"] = min(FIRST_LENGTH, kwargs["num_draft_tokens"])
                return steps(*args, **kwargs)
            return self._planned(steps, self._kind(distribution, kwargs["num_draft_tokens"]), *args, **kwargs)

        return speculative_generate_step

    def _kind(self, distribution: Distribution | Greedy, most: int) -> _Kind:
        key = distribution, most
        if key not in self._kinds:
            while len(self._kinds) >= MOST_KINDS:
                del self._kinds[next(iter(self._kinds))]
            self._kinds[key] = _Kind(Timings(distribution, most), Fixed(min(FIRST_LENGTH, most)))
        return self._kinds[key]

    def _planned(self, steps: Steps, kind: _Kind, *args: Any, **kwargs: Any) -> Generator[Step, None, None]:
        try:
            yield from steps(*args, plan=kind.plan, **kwargs)
        finally:
            if not kind.settled:
                self._learn(kind, *args[1:4])

    def _learn(self, kind: _Kind, model: Any, draft_model: Any, stream: Any) -> None:
        kind.settled = True  # a measurement that fails is not tried again
        try:
            with mx.stream(stream):
                for _ in range(1 if kind.timings.passes else FIRST_PASSES):
                    kind.timings.add(model, draft_model)
        except Exception as error:
            self._on_error(error)
            return
        if isinstance(kind.plan, Tuned):
            kind.plan.prices = kind.timings.prices()
        else:
            kind.plan = Tuned(kind.timings.prices())
        kind.settled = kind.timings.passes >= MOST_PASSES
