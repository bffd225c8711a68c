"""Counts how many draft tokens of a request were kept. Pure.

All that mlx_lm says about a token is `from_draft`. A round of speculative decoding proposes up to `draft_length`
tokens by the draft model; the target model verifies them in one pass, keeps the longest prefix that it agrees with,
and adds a token of its own. mlx_lm yields the kept ones with `from_draft` true, then the target model's token with
`from_draft` false. So:

1. A round opens with the first token after a token of the target model, or at the start.
2. A round proposes `min(max_tokens - tokens so far, draft_length)` tokens: mlx_lm proposes no more than can still
   be used. The steps of our own loop say themselves how many were proposed, see `RoundStep`. A round that
   proposes nothing does not count as one.
3. Each token with `from_draft` is an accepted token, at the next position of its round's proposal.
4. A round closes with a token of the target model, or because max_tokens is reached.
5. Generation may end inside a round: at the end of the sequence, at a stop word, when the client leaves. What was
   proposed counts in full, what was accepted only as far as it was emitted. If proposed tokens are left over,
   nobody knows whether the target model agreed with them: the round is truncated, and `accepted` is a lower
   bound.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Self

from draftd.protocol import PLAIN_RULE

Step = tuple[Any, Any, bool]  # a token, its log-probabilities, and whether it came from the draft
Steps = Generator[Step, None, None]


class RoundStep(tuple[Any, Any, bool]):
    """A step that also says how many tokens of its round were verified. To mlx_lm it is a step like any other."""

    proposed: int

    def __new__(cls, step: Step, *, proposed: int) -> Self:
        made = super().__new__(cls, step)
        made.proposed = proposed
        return made


@dataclass
class AcceptanceCount:
    """The count of one request, to be told of each step in order.

    `draft_length` is None where each round may have another; `rule` is the one that keeps draft tokens.
    """

    draft_length: int | None
    max_tokens: int
    rule: str = PLAIN_RULE
    tokens: int = 0
    rounds: int = 0
    proposed: int = 0
    accepted: int = 0
    undrafted: int = 0  # tokens of rounds that proposed nothing
    proposed_by_position: list[int] = field(default_factory=list)
    accepted_by_position: list[int] = field(default_factory=list)
    _open: bool = False
    _proposed_now: int = 0
    _accepted_now: int = 0

    def observe(self, from_draft: bool, proposed: int | None = None) -> None:
        """Count one emitted token. `proposed` is how many its round proposed; None: as many as the draft length
        says.

        Raises IndexError if more tokens come from the draft than were proposed.
        """
        if not self._open:
            self._open_round(self._usual_proposal() if proposed is None else proposed)
        self.tokens += 1
        self.undrafted += not self._proposed_now
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

    def _usual_proposal(self) -> int:
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
