"""What single tokens cost, which the times of whole rounds do not show: each model is timed alone, once."""

import time
from collections.abc import Callable

import mlx.core as mx

from draftd.engine.generation.acceptance import Tally
from draftd.engine.generation.choices import ALONE
from draftd.engine.generation.drafters.model import ModelDrafter
from draftd.engine.generation.loop import Generation
from draftd.engine.generation.parts import Draw
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.round_times import RoundTimes
from draftd.engine.generation.rows import Tokens, lines_of
from draftd.engine.generation.sampling import Greedy
from draftd.engine.generation.together import answer
from draftd.protocol import MODEL_DRAFTER, Costs

TIMED = 4  # tokens


def measure(generation: Generation) -> tuple[float, float]:
    """Return the seconds of a token without a draft, and of a draft token, at the end of a text.

    It takes about as long as a dozen tokens of an answer. Both models have read all of the text afterwards.
    """
    draft = generation.draft
    if draft is None:
        raise ValueError("there is no draft model to measure")
    text = [*generation.text, generation.text[-1]]  # so that there is something to read in any case
    for reader in (generation.target, draft.reader):
        reader.catch_up(text)

    def alone() -> Tokens:
        tokens: Tokens = generation.target.begin_round(text)
        for _ in range(TIMED):
            tokens = [answer(Draw(generation.target.read(tokens).last(1), Greedy(), 0), crowded=True)]
        return tokens

    single = _seconds(alone, generation.target)
    return single / TIMED, _seconds(lambda: _proposed(draft, text), draft.reader) / TIMED


def _proposed(draft: ModelDrafter, text: list[int]) -> Tokens:
    proposing = draft.proposing(text, TIMED, 0)
    part = next(proposing)
    try:
        while True:
            part = proposing.send(answer(part, crowded=True))
    except StopIteration as end:
        tokens: Tokens = end.value.tokens
        return tokens


def _seconds(tokens: Callable[[], Tokens], reader: Reader) -> float:
    """Return how long it takes to compute some tokens; what was read for them is forgotten."""
    position = reader.position
    for _ in range(2):  # the first time there may be something to compile
        started = time.perf_counter()
        mx.eval(lines_of([tokens()], TIMED))
        seconds = time.perf_counter() - started
        reader.end_round(position)
    return seconds


def costs_of(times: RoundTimes, tally: Tally, measured: tuple[float, float]) -> Costs:
    """Return what drafting costs in rounds as long as those that were counted, of which there is one at least.

    What was seen without a draft is preferred to what was `measured`.
    """
    single, draft = measured
    length = round(tally.proposed / tally.rounds)
    verify = max(times.seconds(MODEL_DRAFTER, length) - length * draft, draft)
    return Costs(times.seconds(ALONE, 0) if times.times(ALONE, 0) else single, draft, verify)
