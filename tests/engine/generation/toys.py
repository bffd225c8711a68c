"""Models that are small enough to count: the next token depends on the last one, by a table."""

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

import mlx.core as mx

from draftd.engine.generation.caches.sequence import SequenceCache
from draftd.engine.generation.choices import ALONE, REVIEW, Choice, Situation
from draftd.engine.generation.drafters.lookup import AnswerStore, LookupDrafter
from draftd.engine.generation.drafters.model import ModelDrafter
from draftd.engine.generation.loop import Generation
from draftd.engine.generation.policy import DraftPolicy
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.sampling import Logits, Rule
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER

Table = Sequence[Sequence[float]]  # of probabilities: a row for each last token

TARGET: Table = [[0.5, 0.3, 0.1, 0.1], [0.05, 0.05, 0.6, 0.3], [0.25, 0.25, 0.25, 0.25], [0.7, 0.0, 0.1, 0.2]]
DRAFT: Table = [[0.3, 0.3, 0.2, 0.2], [0.1, 0.1, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.3, 0.0]]
CYCLE = [[0.1, 0.6, 0.2, 0.1], [0.1, 0.2, 0.6, 0.1], [0.1, 0.2, 0.1, 0.6], [0.6, 0.1, 0.2, 0.1]]
ASTRAY = [CYCLE[0], CYCLE[1], [0.6, 0.1, 0.2, 0.1], CYCLE[3]]  # after 2 it would write 0


class Toy:
    """Stands for a model. It keeps nothing, and notes how many tokens each pass had."""

    def __init__(self, table: Table) -> None:
        self._rows = mx.log(mx.array([list(row) for row in table]))
        self.passes: list[int] = []

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        self.passes.append(tokens.size)
        return self._rows[tokens]

    def reader(self, step: int = 64) -> Reader:
        return Reader(self, SequenceCache([], 0, rereads=False), step)


class Scripted(DraftPolicy):
    """Chooses what it was told to, in turn, as far as it can be had, and notes what it learns."""

    def __init__(self, *choices: Choice) -> None:
        super().__init__()
        self._script: Iterator[Choice] = cycle(choices)
        self.judgements: list[tuple[str, int, int, int]] = []
        self.shares: list[float] = []
        self.taken: list[tuple[Choice, int]] = []
        self.read: list[int] = []  # tokens that the draft model read outside of rounds

    def choose(self, now: Situation) -> Choice:
        choice = next(self._script)
        limits = {MODEL_DRAFTER: now.model, LOOKUP_DRAFTER: now.lookup}
        length = min(choice.length, limits.get(choice.source, 0), now.left)
        return Choice(choice.source, length) if length or choice.source == REVIEW else Choice(ALONE)

    def judged(self, source: str, match: int, length: int, kept: int) -> None:
        self.judgements.append((source, match, length, kept))

    def would_have_kept(self, shares: Any) -> None:
        self.shares += shares

    def took(self, choice: Choice, depth: int, seconds: float) -> None:
        if choice.source == REVIEW:
            self.read.append(choice.length)
        else:
            self.taken.append((choice, depth))


def by_model(*lengths: int) -> list[Choice]:
    return [Choice(MODEL_DRAFTER, length) if length else Choice(ALONE) for length in lengths]


def by_lookup(*lengths: int) -> list[Choice]:
    return [Choice(LOOKUP_DRAFTER, length) for length in lengths]


SCRIPTS: dict[str, list[Choice]] = {
    "alone": [Choice(ALONE)],
    "a draft model": by_model(1, 3, 2, 7),
    "lookups": by_lookup(2, 1, 9),
    "everything": [
        *by_model(3),
        *by_lookup(4),
        Choice(ALONE),
        *by_model(0, 1),
        Choice(ALONE),
        Choice(ALONE),
        Choice(REVIEW),
        *by_lookup(1),
        *by_model(5),
    ],
}


def toy_generation(
    rule: Rule,
    script: Sequence[Choice] = SCRIPTS["alone"],
    *,
    tokens: int,
    prompt: Sequence[int] = (0, 1, 2),
    target: Table = TARGET,
    draft: Table = DRAFT,
    logits: Logits | None = None,
) -> Generation:
    shared = logits or Logits(len(target[0]))
    return Generation(
        text=list(prompt),
        max_tokens=tokens,
        target=Toy(target).reader(),
        rule=rule,
        logits=shared,
        policy=Scripted(*script),
        draft=ModelDrafter(Toy(draft).reader(), shared, rule),
        max_draft=16,
        lookup=LookupDrafter(prompt, AnswerStore()),
    )


def text_of(generation: Generation) -> list[int]:
    """Generate, and return prompt and answer."""
    for _ in generation.generate():
        pass
    return generation.text


REVIEWED = Choice(REVIEW)
