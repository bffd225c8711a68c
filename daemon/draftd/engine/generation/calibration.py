"""Measures what the passes of both models cost on this machine: by the very steps of the loop, with empty caches.

Costs grow with the context, which is left out here: a policy learns from its rounds what they take beyond the costs
(`estimates.Overhead`), and the speed-up that a record tells is an estimate. All costs of a model pair come from the
same moment, so that a machine that is busy later does not tilt one against another.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from draftd.engine.generation.estimates import CostModel, interpolated
from draftd.engine.generation.loop import CachedModel, next_token, one_round, propose
from draftd.engine.generation.policy import FixedLength
from draftd.engine.generation.sampling import Distribution, Greedy

TOKENS = 4  # in one timing of decoding without a draft, and in one of the draft model
LADDER = (
    0,
    1,
    2,
    3,
    4,
    6,
    8,
    12,
    16,
    24,
    32,
    48,
    64,
)  # draft lengths to time; those between are interpolated
LOOKED = (2, 4)  # draft lengths of which a round with a look is timed as well, besides the longest


@dataclass(frozen=True, slots=True)
class Calibration:
    """What to time: rounds with drafts of `lengths`, and of those in `looked` also with a look before verification.

    Everything is timed `passes` times. The first does not count, and of the others the least disturbed does.
    """

    distribution: Distribution | Greedy
    lengths: tuple[int, ...]
    looked: tuple[int, ...]
    passes: int

    @classmethod
    def fixed(cls, length: int) -> "Calibration":
        """For drafts of one length, at least 1: takes as long as some thirty tokens. Sampling is left out."""
        return cls(Greedy(), (length,), (), passes=4)

    @classmethod
    def adaptive(cls, distribution: Distribution | Greedy, max_length: int) -> "Calibration":
        """For drafts of any length up to `max_length`: takes as long as a few hundred tokens."""
        lengths = (*(length for length in LADDER if length < max_length), max_length)
        looked = tuple(length for length in lengths if length in LOOKED or length == max_length)
        return cls(distribution, lengths, looked, passes=6)


class _Timings(NamedTuple):
    """Seconds of one pass over all: of TOKENS tokens each way, of a round of each length, and what looks added."""

    undrafted: float
    draft: float
    rounds: list[float]
    looks: list[float]


def measure(calibration: Calibration, model: Any, draft_model: Any) -> CostModel:
    """Time the passes, on the present stream of mlx."""
    timings = [_time_all(calibration, model, draft_model) for _ in range(calibration.passes)][1:]
    single, draft = (min(seconds) / TOKENS for seconds in list(zip(*timings, strict=True))[:2])
    rounds = [min(seconds) for seconds in zip(*(timing.rounds for timing in timings), strict=True)]
    # Times that were disturbed must not make a pass of the large model cheaper than one of the small model.
    verify = {
        length: max(draft, seconds - length * draft)
        for length, seconds in zip(calibration.lengths, rounds, strict=True)
    }
    looks = [seconds for timing in timings for seconds in timing.looks]
    look = max(0.0, median(looks)) if looks else 0.0
    return CostModel(single, draft, tuple(interpolated({0: single} | verify)), look)


def _time_all(calibration: Calibration, model: Any, draft_model: Any) -> _Timings:
    """Time each step once. A look adds little to a round, and never the same: it takes several to tell."""
    target, draft, text = _fresh(model), _fresh(draft_model), [0]
    distribution, token = calibration.distribution, target.unread(text)

    def a_round(policy: FixedLength) -> float:
        steps = one_round(target, draft, text, distribution, policy, left=calibration.lengths[-1] + 1)
        return _seconds(functools.partial(list, steps))

    undrafted = _seconds(lambda: _decode(_fresh(model), token, distribution))
    drafted = _seconds(lambda: _draft(_fresh(draft_model), token, distribution))
    rounds, looks = [], []
    for length in calibration.lengths:
        rounds.append(a_round(FixedLength(length)))
        if length in calibration.looked:
            looks.append(a_round(FixedLength(length, "before")) - rounds[-1])
    return _Timings(undrafted, drafted, rounds, looks)


def _fresh(model: Any) -> CachedModel:
    return CachedModel(model, make_prompt_cache(model))


def _decode(target: CachedModel, token: mx.array, distribution: Distribution | Greedy) -> None:
    for _ in range(TOKENS):
        token, _, _ = next_token(target, token, distribution)
    mx.eval(token)


def _draft(draft: CachedModel, token: mx.array, distribution: Distribution | Greedy) -> None:
    mx.eval(propose(draft, token, distribution, FixedLength(TOKENS), TOKENS, "never")[0])


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
