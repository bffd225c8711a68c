"""Rounds of several sequences at once: their passes are one, and the device is waited for once.

Each sequence is a generator, see `parts`, and goes on until it needs something. When all of them need something, it
is done for all: first the decisions, then a pass of the draft model in the rows that draft, again and again; then
one of the target model in all rows; then tokens are drawn and drafts verified, see `choosing`. So each does what it
would do alone, with its own rule, penalties and lookups, and what goes wrong in one is its own affair.

Sequences of about the same length stand in one batch: the shorter ones are padded to the longest one, in memory and
in the attention.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import mlx.core as mx

from draftd.engine.generation.batch_policy import BatchPolicy
from draftd.engine.generation.caches.ragged import RaggedBatch, RaggedRow
from draftd.engine.generation.choices import ALONE, Choice
from draftd.engine.generation.choosing import Verification, draw
from draftd.engine.generation.parts import Deciding, Decision, Draw, Part, Pass, Ready, Verified, Verify
from draftd.engine.generation.policy import Row
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.rows import Rows, Tokens
from draftd.engine.generation.turns import Pause

Sequence_ = TypeVar("Sequence_", bound=Hashable)
Step = Callable[[Any, Any], "Part | Pause | None"]
"""Sends a sequence its answer, or the error that there is instead; returns what it needs next, None at its end."""


class Together(Generic[Sequence_]):
    """The batches of two loaded models."""

    def __init__(self) -> None:
        self._policy = BatchPolicy()
        self._batches: dict[Hashable, RaggedBatch] = {}

    def put(self, reader: Reader, model: Any, size: Hashable) -> None:
        """Let a model read a sequence of about that size in a batch, with others of the same kinds."""
        key = id(model), size, reader.kinds
        batch = self._batches.get(key)
        if isinstance(reader.cache, RaggedRow) and reader.cache.batch is batch:
            return
        reader.leave()
        if batch is None:
            batch = self._batches[key] = RaggedBatch(model, reader.cache.layers)
        reader.join(batch)

    def forget_empty(self) -> None:
        """Give back the memory of batches that nobody is in."""
        self._batches = {key: batch for key, batch in self._batches.items() if not batch.is_empty}

    @property
    def nbytes(self) -> int:
        """Bytes of all batches."""
        return sum(batch.nbytes for batch in self._batches.values())

    def round(self, sequences: Sequence[Sequence_], step: Step) -> dict[Sequence_, Pause]:
        """Give each sequence a round; return the pauses of those that have not ended."""
        needs: dict[Sequence_, Any] = {}
        self._answer(needs, dict.fromkeys(sequences), step)
        asked = {sequence: part for sequence, part in needs.items() if isinstance(part, Deciding)}
        forced = len(needs) - len(asked)  # by grammars
        decided = self._choose(asked)
        for sequence in [one for one in asked if one not in decided]:
            self._turn(needs, sequence, step)
        started = time.perf_counter()
        self._answer(needs, decided, step)
        while waiting := _by_kind(needs):
            self._answer(needs, _done(waiting), step)
        seconds = time.perf_counter() - started
        if decided and not forced and all(needs.get(sequence) is Pause.ROUND for sequence in decided):
            rows = [Row(asked[sequence].policy, asked[sequence].now) for sequence in decided]
            self._policy.took(rows, [decision.choice for decision in decided.values()], seconds)
        return needs  # which are pauses now

    def _choose(self, asked: Mapping[Sequence_, Deciding]) -> dict[Sequence_, Decision]:
        """Decide for those that share a pass; where a token is being computed already, all are given it first."""
        choices = (
            self._policy.choose([Row(part.policy, part.now) for part in asked.values()]) if asked else []
        )
        goes_on = all(choice == Choice(ALONE) for choice in choices)
        if any(part.ahead for part in asked.values()):
            choices = [Choice(ALONE) if choice is None or choice.length else choice for choice in choices]
        decisions = zip(asked, choices, strict=True)
        return {one: Decision(choice, goes_on, shared=True) for one, choice in decisions if choice}

    def _turn(self, needs: dict[Sequence_, Any], sequence: Sequence_, step: Step) -> None:
        """Let a sequence have its round on its own."""
        while not isinstance(part := needs.get(sequence, Pause.ROUND), Pause):
            self._answer(needs, {sequence: attempt(part, crowded=True)}, step)

    def _answer(self, needs: dict[Sequence_, Any], answers: Mapping[Sequence_, Any], step: Step) -> None:
        for sequence, reply in answers.items():
            part = step(sequence, reply)
            if part is None:
                needs.pop(sequence, None)
            else:
                needs[sequence] = part


def _by_kind(needs: Mapping[Sequence_, Any]) -> dict[type, dict[Sequence_, Any]]:
    """Return what is needed, by its kind; nothing for those who have their pause."""
    kinds: dict[type, dict[Sequence_, Any]] = {}
    for sequence, part in needs.items():
        kinds.setdefault(type(part), {})[sequence] = part
    kinds.pop(Pause, None)
    return kinds


def _done(waiting: Mapping[type, dict[Sequence_, Any]]) -> Mapping[Sequence_, Any]:
    """Do what comes first of all that is needed, for all that need it; return the answers, or the errors."""
    if late := waiting.get(Deciding):
        return dict.fromkeys(late, Decision(Choice(ALONE), goes_on=False, shared=True))
    if drawing := waiting.get(Draw):
        return each(draw, drawing)
    if passes := waiting.get(Pass):
        drafting = {sequence: part for sequence, part in passes.items() if part.by_draft}
        try:
            return read_together(drafting or passes)
        except Exception as error:
            return dict.fromkeys(drafting or passes, error)
    return each(computed, waiting.get(Verify, {}) | waiting.get(Ready, {}))


def answer(part: Part, *, crowded: bool) -> Any:
    """Answer a generation that is on its own; nothing is computed ahead where others wait for their turns."""
    if isinstance(part, Pass):
        return part.reader.read(part.tokens)
    if isinstance(part, Deciding):
        return Decision(part.policy.choose(part.now), goes_on=not crowded)
    if isinstance(part, Ready):
        mx.eval(part.drawn.tokens.array)
        return None
    return (draw({None: part}) if isinstance(part, Draw) else computed({None: part}))[None]


def attempt(part: Part, *, crowded: bool) -> Any:
    """Return the answer, or the error that there is instead, which is to be raised in the generation."""
    try:
        return answer(part, crowded=crowded)
    except Exception as error:
        return error


def each(
    do: Callable[[Mapping[Sequence_, Any]], Mapping[Sequence_, Any]], parts: Mapping[Sequence_, Any]
) -> dict[Sequence_, Any]:
    """Do something for all; where that fails, for each alone, to find out whose error it is."""
    try:
        return dict(do(parts))
    except Exception:
        answers: dict[Sequence_, Any] = {}
        for sequence, part in parts.items():
            try:
                answers |= do({sequence: part})
            except Exception as error:
                answers[sequence] = error
        return answers


def computed(waiting: Mapping[Sequence_, Ready | Verify]) -> dict[Sequence_, Verified | None]:
    """Wait for the device, once, for all that wait for a token or for what becomes of a draft."""
    parts: Mapping[type, dict[Sequence_, Any]] = _by_kind(waiting)
    verification: Verification[Sequence_] = Verification(parts.get(Verify, {}))
    drawn = {part.drawn.tokens for part in parts.get(Ready, {}).values()}
    mx.eval([*verification.arrays, *(tokens.array for tokens in drawn)])
    answers: dict[Sequence_, Verified | None] = dict.fromkeys(waiting)
    answers.update(verification.answers())
    return answers


def read_together(passes: Mapping[Sequence_, Pass]) -> dict[Sequence_, Rows]:
    """Read what is to be read, in one pass for each batch; return the logits."""
    batches: dict[RaggedBatch, dict[RaggedRow, Tokens]] = {}
    for part in passes.values():
        if isinstance(row := part.reader.cache, RaggedRow):
            batches.setdefault(row.batch, {})[row] = part.tokens
    logits = {row: read for batch, tokens in batches.items() for row, read in batch.read(tokens).items()}
    answers = {}
    for sequence, part in passes.items():
        if isinstance(row := part.reader.cache, RaggedRow):
            answers[sequence] = logits[row]
            part.reader.advance(len(part.tokens))
        else:
            answers[sequence] = part.reader.read(part.tokens)
    return answers
