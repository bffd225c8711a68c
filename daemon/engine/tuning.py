"""Requests whose draft length tunes itself: what each kind of them has learnt, and the prices that it goes by.

Requests are of one kind if they sample in the same way: then tokens are as easy to guess, and sampling takes as
long. The prices of a kind are measured at the end of its first generation, which drafts at a fixed length and
ends later by the time of some fifty tokens; by the very steps of the loop, with empty caches.
"""

import functools
import time
from collections.abc import Callable, Generator, Iterator
from itertools import pairwise
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from daemon.engine.acceptance import Step, Steps
from daemon.engine.draft_length import Fixed, Plan, Prices, Tuned
from daemon.engine.reader import Reader
from daemon.engine.rules import distribution_of
from daemon.engine.sampling import Distribution, Greedy
from daemon.engine.speculative import next_token, one_round, propose

FIRST_LENGTH = 3  # of drafts as long as the prices are not known, and where mlx_lm's own loop drafts
MOST_KINDS = 16  # that are remembered: a client may ask for another temperature each time
TIMES = 4
STEPS = 4  # tokens of one timing without drafting, and of one by the draft model
TIMED = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # draft lengths; what lies between is interpolated


class Tuning:
    """The plans of all kinds. `wanted` tells whether the present request is to be tuned."""

    def __init__(self, wanted: Callable[[], bool], on_error: Callable[[Exception], None]) -> None:
        self._wanted = wanted
        self._on_error = on_error
        self._plans: dict[tuple[Distribution | Greedy, int], Plan] = {}

    def tuned(self, steps: Steps) -> Steps:
        """Wrap a `speculative_generate_step` that takes a `plan`."""

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
        plan = self._plans.get(kind)
        try:
            yield from steps(*args, plan=plan or Fixed(min(FIRST_LENGTH, most)), **kwargs)
        finally:
            if plan is None:
                self._learn(kind, *args[1:4])

    def _learn(
        self, kind: tuple[Distribution | Greedy, int], model: Any, draft_model: Any, stream: Any
    ) -> None:
        while len(self._plans) >= MOST_KINDS:
            del self._plans[next(iter(self._plans))]
        distribution, most = kind
        self._plans[kind] = Fixed(min(FIRST_LENGTH, most))  # a measurement that fails is not tried again
        try:
            with mx.stream(stream):
                self._plans[kind] = Tuned(measure(distribution, model, draft_model, most))
        except Exception as error:
            self._on_error(error)


def measure(distribution: Distribution | Greedy, model: Any, draft_model: Any, most: int) -> Prices:
    """Time the steps of the loop for drafts of up to `most` tokens: the least disturbed of TIMES, after a first."""
    lengths = [*(length for length in TIMED if length < most), most]
    times = [tuple(_timings(distribution, model, draft_model, lengths)) for _ in range(TIMES + 1)]
    alone, drafts, *rounds = (min(each) for each in zip(*times[1:], strict=True))
    draft = drafts / STEPS
    # Times that were disturbed must not make the large model's pass cheaper than one of the small model.
    verify = [max(draft, seconds - n * draft) for n, seconds in zip(lengths, rounds, strict=True)]
    return Prices(alone / STEPS, draft, tuple(interpolated(lengths, verify)))


def interpolated(places: list[int], values: list[float]) -> Iterator[float]:
    """Yield a value for each whole number from the first place to the last."""
    for (here, low), (there, high) in pairwise(zip(places, values, strict=True)):
        for place in range(here, there):
            yield low + (high - low) * (place - here) / (there - here)
    yield values[-1]


def _timings(
    distribution: Distribution | Greedy, model: Any, draft_model: Any, lengths: list[int]
) -> Iterator[float]:
    """Seconds of STEPS tokens without drafting, of STEPS draft tokens, and of a round of each length."""
    target, draft, text = _fresh(model), _fresh(draft_model), [0]
    token = target.unread(text)
    yield _seconds(lambda: _alone(_fresh(model), token, distribution))
    yield _seconds(lambda: propose(_fresh(draft_model), token, distribution, _Timed(STEPS), STEPS))
    for length in lengths:
        steps = one_round(target, draft, text, distribution, _Timed(length), left=length + 1)
        yield _seconds(functools.partial(list, steps))


class _Timed(Fixed):
    """A fixed length that looks at its tokens, as a plan does that decides by them."""

    watches = True


def _fresh(model: Any) -> Reader:
    return Reader(model, make_prompt_cache(model))


def _alone(target: Reader, token: mx.array, distribution: Distribution | Greedy) -> None:
    for _ in range(STEPS):
        token, _, _ = next_token(target, token, distribution)
    mx.eval(token)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
