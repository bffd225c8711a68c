"""Counting of draft acceptance, from the one thing that mlx_lm tells about each token: `from_draft`.

A round of speculative decoding proposes up to `draft_length` tokens by the draft model; the target model
verifies them in one step, keeps the longest prefix that it agrees with, and adds a token of its own. mlx_lm
yields the kept ones with `from_draft` true, then the target's token with `from_draft` false. So:

1. A round opens with the first token after a token of the target model, or at the start.
2. A round proposes `min(max_tokens - tokens so far, draft_length)` tokens: mlx_lm proposes no more than can
   still be used. In our own loop the steps say themselves how many were proposed, see `RoundStep`. A round that
   proposes nothing is none.
3. Each token with `from_draft` is one accepted token, at the next position of its round's proposal.
4. A round closes with a token of the target model, or because max_tokens is reached.
5. Generation may end inside a round: end of sequence, a stop word, a client that left. What was proposed
   counts in full, what was accepted as far as it was emitted. If proposed tokens are left over, nobody knows
   whether the target model agreed with them: the round is truncated, and `accepted` is a lower bound.
"""

import functools
import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Self

from draftd.engine.generation.policy import DraftPolicy
from draftd.engine.generation.rules import rule_of
from draftd.protocol import PLAIN_RULE


@dataclass
class AcceptanceCount:
    """The count of one request. Pure: fed with each step, in order.

    `draft_length` is None where a `policy` decides about each round anew.
    """

    draft_length: int | None
    max_tokens: int
    rule: str = PLAIN_RULE
    policy: DraftPolicy | None = None
    tokens: int = 0
    rounds: int = 0
    proposed: int = 0
    accepted: int = 0
    alone: int = 0  # tokens of rounds that proposed nothing
    proposed_by_position: list[int] = field(default_factory=list)
    accepted_by_position: list[int] = field(default_factory=list)
    _open: bool = False
    _proposed_now: int = 0
    _accepted_now: int = 0

    def observe(self, from_draft: bool, proposed: int | None = None) -> None:
        """Count one emitted token of a round that proposed so many, None if by the draft length.

        Raises IndexError if more come from the draft than were proposed.
        """
        if not self._open:
            self._open_round(self._most() if proposed is None else proposed)
        self.tokens += 1
        self.alone += not self._proposed_now
        if from_draft:
            self.accepted_by_position[self._accepted_now] += 1
            self._accepted_now += 1
            self.accepted += 1
        else:
            self._open = False

    @property
    def truncated_rounds(self) -> int:
        """1 if generation ended inside a round with proposed tokens left over, else 0."""
        return int(self._open and self._accepted_now < self._proposed_now)

    def _most(self) -> int:
        return max(0, min(self.max_tokens - self.tokens, self.draft_length or 0))

    def _open_round(self, proposed: int) -> None:
        self._open = True
        self._accepted_now = 0
        self._proposed_now = proposed
        self.rounds += self._proposed_now > 0
        self.proposed += self._proposed_now
        missing = self._proposed_now - len(self.proposed_by_position)
        self.proposed_by_position.extend([0] * missing)
        self.accepted_by_position.extend([0] * missing)
        for position in range(self._proposed_now):
            self.proposed_by_position[position] += 1


Step = tuple[Any, Any, bool]


class RoundStep(tuple[Any, Any, bool]):
    """A step that says how many tokens its round proposed to be verified; for mlx_lm it is one like all others."""

    proposed: int

    def __new__(cls, step: Step, *, proposed: int) -> Self:
        made = super().__new__(cls, step)
        made.proposed = proposed
        return made


Steps = Callable[..., Generator[Step, None, None]]


def counted(steps: Steps, report: Callable[[AcceptanceCount], None]) -> Steps:
    """Wrap mlx_lm's `speculative_generate_step`: same tokens, and `report` gets the count at the end.

    Whatever ends the generation, the wrapped generator is closed before this one has ended: closing it
    rewinds the prompt cache, which mlx_lm.server stores right afterwards. A token that cannot be counted ends
    the counting of its request, never the request; no count is reported then, since none is known.
    """
    defaults = inspect.signature(steps).parameters

    @functools.wraps(steps)
    def speculative_generate_step(*args: Any, **kwargs: Any) -> Generator[Step, None, None]:
        policy = kwargs.get("policy")
        length = kwargs.get("num_draft_tokens", defaults["num_draft_tokens"].default)
        count = AcceptanceCount(
            draft_length=None if policy else length,
            max_tokens=kwargs.get("max_tokens", defaults["max_tokens"].default),
            rule=rule_of(kwargs),
            policy=policy,
        )
        known = True
        inner = steps(*args, **kwargs)
        try:
            for step in inner:
                known = known and _observed(count, step)
                yield step
        finally:
            try:
                inner.close()
            finally:
                if known:
                    report(count)

    return speculative_generate_step


def _observed(count: AcceptanceCount, step: Step) -> bool:
    try:
        count.observe(bool(step[2]), getattr(step, "proposed", None))
    except Exception:
        return False
    return True
