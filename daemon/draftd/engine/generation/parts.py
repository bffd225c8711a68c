"""What a generation needs done on its way, by whoever drives it.

A generation is a generator. Beside its tokens it yields what it needs and cannot do for itself where several are
at work: a decision, since one draft length has to fit all; a pass of a model, since several are read in one; to
have the device begin with something, and to wait for it, since each is done once for all. Each of these gets its
answer by `send`. `answer` gives what they get where a generation is on its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from draftd.engine.generation.choices import Choice, Situation
from draftd.engine.generation.policy import DraftPolicy
from draftd.engine.generation.reader import Reader


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer. `logits` are those of the target model at its place, before they were shaped,
    (vocabulary,).

    `source` drafted it, ALONE means that the target model chose it; `drafter` and `proposed` are those of its
    round.
    """

    token: int
    logits: mx.array
    source: str
    drafter: str
    proposed: int

    def logprobs(self) -> mx.array:
        """Return the normalised logits. Only where they are asked for: exponentials are dear on a CPU."""
        logits = self.logits.astype(mx.float32)  # in bfloat16 a log-probability is right to a sixteenth only
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


@dataclass(frozen=True, slots=True)
class Deciding:
    """How is it to go on? The answer is a `Decision`.

    `ahead`: the next token is being computed already.
    """

    policy: DraftPolicy
    now: Situation
    ahead: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """`goes_on`: without a draft, the token after the next one may be computed ahead. `shared`: the round is one of
    several sequences, and how long it takes tells nothing of this one.
    """

    choice: Choice
    goes_on: bool
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Pass:
    """A model is to read tokens, (n,). The answer is the logits, (n, vocabulary), still being computed."""

    reader: Reader
    tokens: mx.array
    by_draft: bool = (
        False  # the draft model's, of which there may be several before one of the target model's
    )


@dataclass(frozen=True, slots=True)
class Begun:
    """These may begin to be computed, while it goes on. There is no answer."""

    arrays: Sequence[mx.array]


@dataclass(frozen=True, slots=True)
class Ready:
    """These are to be computed before it goes on. There is no answer."""

    arrays: Sequence[mx.array]


Part = Deciding | Pass | Begun | Ready


def answer(part: Part, *, crowded: bool) -> Decision | mx.array | None:
    """Answer a generation that is on its own; nothing is computed ahead where others wait for their turns."""
    if isinstance(part, Deciding):
        choice = part.policy.choose(part.now)
        return Decision(choice, goes_on=not crowded)
    if isinstance(part, Pass):
        return part.reader.read(part.tokens)
    if isinstance(part, Begun):
        mx.async_eval(*part.arrays)  # type: ignore[no-untyped-call]
        return None
    mx.eval(*part.arrays)
    return None


def attempt(part: Part, *, crowded: bool) -> Any:
    """Return the answer, or the error that there is instead, which is to be raised in the generation."""
    try:
        return answer(part, crowded=crowded)
    except Exception as error:
        return error


def plain(numbers: mx.array) -> Any:
    """Return an array as Python numbers, once it has been computed."""
    return numbers.tolist()
