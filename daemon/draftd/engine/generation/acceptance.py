"""Counting of draft tokens, from what the loop says of each token. Pure.

A round proposes some tokens, keeps those of them that come first, and adds one of the target model. (Where a second
drafter went on from what the first proposed, and all of that was kept, it is another round of the second's.) What
was proposed counts when the first token of its round is given out, what was accepted as far as it was given out: an
answer may end inside a round (end of sequence, a stop text, a client that left). If proposed tokens are left over
then, nobody knows any more whether they were kept: the round is truncated, and `accepted` is a lower bound.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Rounds of one drafter, and the draft tokens that were proposed and accepted in them."""

    rounds: int = 0
    proposed: int = 0
    accepted: int = 0


@dataclass(slots=True)
class AcceptanceCount:
    """The count of one request, fed with each token in order.

    `draft_length` is that of each round, None where the policy decides about each one anew; `alone` counts tokens
    of rounds without a draft. `passes` of the target model read for it, and had `rows` in all, its own and
    those of others.
    """

    draft_length: int | None
    rule: str
    tokens: int = 0
    alone: int = 0
    passes: int = 0
    rows: int = 0
    drafters: dict[str, Tally] = field(default_factory=dict)
    proposed_by_position: list[int] = field(default_factory=list)
    accepted_by_position: list[int] = field(default_factory=list)
    _left: int = 0  # proposed tokens of the open round that were not given out
    _kept: int = 0  # those that were
    _open: bool = False
    _drafter: str = ""  # of the open round

    @property
    def rounds(self) -> int:
        """With a draft."""
        return sum(tally.rounds for tally in self.drafters.values())

    @property
    def proposed(self) -> int:
        """By all drafters."""
        return sum(tally.proposed for tally in self.drafters.values())

    @property
    def accepted(self) -> int:
        """Of all drafters."""
        return sum(tally.accepted for tally in self.drafters.values())

    @property
    def truncated_rounds(self) -> int:
        """1 if the answer ended inside a round with proposed tokens left over, else 0."""
        return int(self._open and self._left > 0)

    def read(self, rows: int) -> None:
        """Count a pass of the target model, over `rows` requests."""
        self.passes += 1
        self.rows += rows

    def observe(self, drafter: str, proposed: int, *, drafted: bool) -> None:
        """Count one token of a round in which a drafter proposed that many; `drafted`: it is one of them."""
        self.tokens += 1
        if not proposed:
            self.alone += 1
            return
        if not self._open or (drafter != self._drafter and not self._left):
            self._open_round(drafter, proposed)
        if drafted:
            self.drafters[drafter].accepted += 1
            self.accepted_by_position[self._kept] += 1
            self._kept += 1
            self._left -= 1
        self._open = drafted

    def _open_round(self, drafter: str, proposed: int) -> None:
        self._left, self._kept, self._drafter = proposed, 0, drafter
        tally = self.drafters.setdefault(drafter, Tally())
        tally.rounds += 1
        tally.proposed += proposed
        missing = proposed - len(self.proposed_by_position)
        self.proposed_by_position.extend([0] * missing)
        self.accepted_by_position.extend([0] * missing)
        for position in range(proposed):
            self.proposed_by_position[position] += 1
