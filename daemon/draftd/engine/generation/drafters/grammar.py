"""A grammar's part in a generation: what may follow, and drafts where it leaves no choice.

Tokens that a grammar forces are proposed like any others, and verified: the same letters can be written in several
tokens, and which of them the target model would take is its own affair. So what comes out is distributed as the
target model's tokens are, given the grammar.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher

from draftd.engine.grammars.numbers import BITS, Numbers


class Grammar:
    """What may follow in one answer, of a model with `vocabulary` tokens; `ends` are those that end an answer.

    With `drafts` it proposes what it forces; without, it only forbids. `numbers` bounds those of the answer.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary: int,
        ends: Sequence[int],
        *,
        drafts: bool = True,
        numbers: Numbers | None = None,
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._ends = frozenset(ends)
        self._drafts = drafts
        self._numbers = numbers
        self._tail = b""  # the end of the answer, for numbers
        self._forced: list[int] | None = None  # until it is asked for what is forced here
        self.end = ends[0]
        # At each of the places that were masked last, and at the last of them.
        self.may_follow: mx.array | None = None
        self.only_end_follows = False

    @property
    def complete(self) -> bool:
        """Whether nothing can follow but the end."""
        return self._matcher.is_stopped()

    def ends_with(self, token: int) -> bool:
        """Whether a token ends an answer."""
        return token in self._ends

    def take(self, token: int) -> None:
        """Take the next token of the answer. Raise ValueError for one that may not follow."""
        self._forced = None
        if token not in self._ends:
            self._matcher.consume_token(token)
            self._check()
            if self._numbers:
                self._tail = self._numbers.after(self._tail, token)

    def forced(self, limit: int) -> list[int]:
        """Return the tokens that the grammar leaves no choice about, `limit` at most."""
        if self._forced is None:
            self._forced = self._matcher.compute_ff_tokens() if self._drafts else []
            self._check()
        return self._forced[:limit]

    def allowed(self, tokens: Sequence[int]) -> list[int]:
        """Return as many of some tokens as may follow, one after the other."""
        words = list(takewhile(lambda token: token not in self._ends, tokens))
        return words[: self._matcher.validate_tokens(words)]

    def mask(self, rows: mx.array, drafted: Sequence[int]) -> mx.array:
        """Return logits without what may not follow.

        `rows`, (rows, vocabulary), are those of the last places in what was taken and `drafted`, which is allowed.
        """
        first = len(drafted) + 1 - len(rows)
        bits, taken, tail = [], 0, self._tail
        for place, token in enumerate((*drafted, None)):
            if place >= first:
                allowed = self._matcher.compute_bitmask()
                bits.append(self._numbers.bounded(allowed, tail) if self._numbers else allowed)
            if token is not None and token not in self._ends:
                taken += self._matcher.consume_token(token)
                tail = self._numbers.after(tail, token) if self._numbers else tail
        self.only_end_follows = self._matcher.is_stopped()
        self._matcher.rollback(taken)
        self._check()
        words = mx.array(np.frombuffer(b"".join(bits), np.uint32).reshape(len(bits), -1))
        each = ((words[:, :, None] >> mx.arange(BITS, dtype=mx.uint32)) & 1).reshape(len(bits), -1)
        self.may_follow = each[:, : self._vocabulary].astype(mx.bool_)
        return mx.where(self.may_follow, rows, -mx.inf)

    def _check(self) -> None:
        """Raise ValueError if llguidance has given up: it would end the answer then, in the middle of it."""
        if self._matcher.is_error():
            raise ValueError(f"the grammar has failed: {self._matcher.get_error()}")
