"""How long the steps of our loop take on this machine: by the very steps of the loop, with empty caches."""

import functools
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from draftd.engine.generation.cost_model import CostModel
from draftd.engine.generation.loop import next_token, one_round, propose
from draftd.engine.generation.policy import FixedLength
from draftd.engine.generation.reader import CachedModel
from draftd.engine.generation.sampling import Distribution, Greedy

STEPS = 4  # tokens of one timing without drafting, and of one by the draft model
LOOKED = (2, 4)  # and the longest: those of which a round with a look is timed as well
TIMED = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # draft lengths; what lies between is interpolated


def measure(
    distribution: Distribution | Greedy, model: Any, draft_model: Any, most: int, passes: int
) -> CostModel:
    """Time the steps for drafts of up to `most` tokens: the least disturbed time of each, after a first pass."""
    lengths = [*(length for length in TIMED if length < most), most]
    times = [_timings(distribution, model, draft_model, lengths) for _ in range(passes)][1:]
    alone, drafts = (min(each) for each in zip(*(steps for steps, _, _ in times), strict=True))
    rounds = [min(each) for each in zip(*(rounds for _, rounds, _ in times), strict=True)]
    draft = drafts / STEPS
    # Times that were disturbed must not make the large model's pass cheaper than one of the small model.
    verify = [max(draft, seconds - n * draft) for n, seconds in zip(lengths, rounds, strict=True)]
    look = max(0.0, median(extra for _, _, extras in times for extra in extras))
    return CostModel(alone / STEPS, draft, tuple(interpolated(lengths, verify)), look)


def interpolated(places: list[int], values: list[float]) -> Iterator[float]:
    """Yield a value for each whole number from the first place to the last."""
    for (here, low), (there, high) in pairwise(zip(places, values, strict=True)):
        for place in range(here, there):
            yield low + (high - low) * (place - here) / (there - here)
    yield values[-1]


def _timings(
    distribution: Distribution | Greedy, model: Any, draft_model: Any, lengths: list[int]
) -> tuple[tuple[float, float], list[float], list[float]]:
    """Seconds of STEPS tokens without drafting, and of STEPS draft tokens; of a round of each length; and what a
    look adds to one, for some lengths: little, so that it takes several to tell.
    """
    target, draft, text = _fresh(model), _fresh(draft_model), [0]
    token = target.unread(text)

    def a_round(policy: FixedLength) -> float:
        steps = one_round(target, draft, text, distribution, policy, left=lengths[-1] + 1)
        return _seconds(functools.partial(list, steps))

    alone = _seconds(lambda: _alone(_fresh(model), token, distribution))
    drafted = _seconds(lambda: _drafted(_fresh(draft_model), token, distribution))
    rounds, looks = [], []
    for length in lengths:
        rounds.append(a_round(FixedLength(length)))
        if length in LOOKED or length == lengths[-1]:
            looks.append(a_round(FixedLength(length, "before")) - rounds[-1])
    return (alone, drafted), rounds, looks


def _fresh(model: Any) -> CachedModel:
    return CachedModel(model, make_prompt_cache(model))


def _alone(target: CachedModel, token: mx.array, distribution: Distribution | Greedy) -> None:
    for _ in range(STEPS):
        token, _, _ = next_token(target, token, distribution)
    mx.eval(token)


def _drafted(draft: CachedModel, token: mx.array, distribution: Distribution | Greedy) -> None:
    mx.eval(propose(draft, token, distribution, FixedLength(STEPS), STEPS, "never")[0])


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
