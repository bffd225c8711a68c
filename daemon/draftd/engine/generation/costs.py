"""What drafting costs on this machine, and what it is worth: Leviathan et al., arXiv 2211.17192, section 3.3.

The passes are timed alone, with empty caches, once for each draft length: at the end of the first generation
with it, which thereby ends later by the time of some twenty tokens. All of an estimate is thus from the same
moment, and a machine that is busy later does not tilt it. The costs of sampling and of a long context are left
out: it is an estimate.
"""

import functools
import time
from collections.abc import Callable, Generator
from dataclasses import asdict
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from draftd.engine.generation.acceptance import AcceptanceCount, Step, Steps
from draftd.engine.generation.policy import AdaptiveLength
from draftd.protocol import Costs

TIMES = 3
STEPS = 3  # tokens of one timing without drafting, and of one by the draft model alone


def speedup(costs: Costs, count: AcceptanceCount) -> float | None:
    """Return how many times as fast as without drafting the counted tokens came; None without a draft."""
    seconds = count.proposed * costs.draft + count.rounds * costs.verify + count.alone * costs.single
    return count.tokens * costs.single / seconds if count.rounds else None


class Meter:
    """The costs by draft length, as far as they are known."""

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._known: dict[int, Costs | None] = {}
        self._on_error = on_error

    def figures(self, count: AcceptanceCount) -> dict[str, Any]:
        """Return what the record of a generation says about costs: nothing where they are not known."""
        costs = self._costs_of(count)
        return {"costs": asdict(costs), "speedup": speedup(costs, count)} if costs and count.rounds else {}

    def _costs_of(self, count: AcceptanceCount) -> Costs | None:
        if isinstance(count.policy, AdaptiveLength):
            prices = count.policy.cost_model
            return Costs(prices.single, prices.draft, prices.mean_verify(count.proposed_by_position))
        return None if count.draft_length is None else self._known.get(count.draft_length)

    def metered(self, steps: Steps) -> Steps:
        """Wrap mlx_lm's `speculative_generate_step`: same tokens, and then the costs are measured, if need be."""

        @functools.wraps(steps)
        def speculative_generate_step(*args: Any, **kwargs: Any) -> Generator[Step, None, None]:
            try:
                yield from steps(*args, **kwargs)
            finally:
                if "policy" not in kwargs:  # which knows its prices
                    self._learn(kwargs.get("num_draft_tokens", 0), *args[1:4])

        return speculative_generate_step

    def _learn(self, length: int, *place: Any) -> None:
        if length < 1 or length in self._known:
            return
        self._known[length] = None  # a measurement that fails is not tried again
        try:
            model, draft_model, stream = place
            with mx.stream(stream):
                self._known[length] = measure(model, draft_model, length)
        except Exception as error:
            self._on_error(error)


def measure(model: Any, draft_model: Any, length: int) -> Costs:
    """Time the passes for so many draft tokens, interleaved: the least disturbed of TIMES, after a first."""
    times = [(_chain(model), _chain(draft_model), _pass(model, length + 1)) for _ in range(TIMES + 1)]
    single, draft, verify = (min(each) for each in zip(*times[1:], strict=True))
    return Costs(single / STEPS, draft / STEPS, verify)


def _chain(model: Any) -> float:
    """Seconds to generate STEPS tokens one after the other, none of them awaited but the last."""
    cache, token = make_prompt_cache(model), mx.array([0], mx.uint32)
    started = time.perf_counter()
    for _ in range(STEPS):
        token = mx.argmax(model(token[None], cache=cache)[0, -1:], axis=-1)
        mx.async_eval(token)  # type: ignore[no-untyped-call]
    mx.eval(token)
    return time.perf_counter() - started


def _pass(model: Any, rows: int) -> float:
    started = time.perf_counter()
    mx.eval(mx.argmax(model(mx.zeros((1, rows), mx.uint32), cache=make_prompt_cache(model))[0], axis=-1))
    return time.perf_counter() - started
