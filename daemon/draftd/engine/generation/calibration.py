"""What a draft token costs, which the times of whole rounds do not show: the draft model is timed by itself, once."""

import time
from collections.abc import Sequence

import mlx.core as mx

from draftd.engine.generation.drafters.model import ModelDrafter
from draftd.engine.generation.estimates import ALONE, CostModel
from draftd.engine.generation.policy import MODEL
from draftd.protocol import Costs

TIMED = 4  # draft tokens


def measure(draft: ModelDrafter, text: Sequence[int]) -> float:
    """Return the seconds of a draft token after this text: about as long as one token of an answer takes in all."""
    draft.reader.catch_up(text)
    seconds = []
    for _ in range(2):  # the first pass may have something to compile
        started = time.perf_counter()
        mx.eval(draft.propose(text, TIMED, 0).tokens)
        seconds.append(time.perf_counter() - started)
        draft.reader.end_round(len(text))
    return seconds[-1] / TIMED


def costs_of(model: CostModel, depth: int, proposed_by_position: Sequence[int], draft: float) -> Costs | None:
    """Return what drafting costs at a depth of context, for rounds as long as those that proposed so many tokens.

    `draft` is in seconds, see `measure`. None while nothing was timed without a draft.
    """
    times = model.at(depth)
    if not times.times(ALONE, 0) or not proposed_by_position:
        return None
    length = max(1, round(sum(proposed_by_position) / proposed_by_position[0]))
    verify = max(times.seconds(MODEL, length) - length * draft, draft)
    return Costs(times.seconds(ALONE, 0), draft, verify)
