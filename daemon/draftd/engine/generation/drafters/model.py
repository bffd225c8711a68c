"""Drafts from a draft model: a smaller model with the tokenizer of the target model."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from draftd.engine.generation.drafters.grammar import Grammar
from draftd.engine.generation.parts import Draw, Pass, Ready
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.rows import Drawn, Rows, Tokens
from draftd.engine.generation.sampling import Logits, Rule


@dataclass(frozen=True, slots=True)
class Draft:
    """Proposed tokens, and what each was drawn from, a row of shaped logits; nothing for a lookup.

    A grammar has forced the first `forced` of them.
    """

    tokens: list[int | Drawn]
    rows: list[mx.array | Drawn]
    forced: int = 0


class ModelDrafter:
    """Proposes what the draft model would write, by the rule and the shape of the request."""

    def __init__(self, reader: Reader, logits: Logits, rule: Rule) -> None:
        self.reader = reader
        self._logits = logits
        self._rule = rule

    def proposing(
        self,
        text: Sequence[int],
        length: int,
        position: int,
        grammar: Grammar | None = None,
        forced: Sequence[int] = (),
    ) -> Generator[Draw | Pass | Ready, Any, Draft]:
        """Draft what is forced after the text, and `length` tokens more; `position` is that of the first one.

        Yields what it needs, see `parts`; nothing is waited for. Under a grammar each token has to be known before
        the next one, and the draft may end early, where the answer does.
        """
        unread: Tokens = [*self.reader.begin_round(text), *forced]
        drafted = Draft(list(forced), [], len(forced))
        if forced:
            places = mx.arange(self._logits.vocabulary)
            drafted.rows.extend(mx.where(places == each, 0.0, -mx.inf)[None] for each in forced)
        known = list(forced)
        for place in range(position + len(forced), position + len(forced) + length):
            read: Rows = yield Pass(self.reader, unread, by_draft=True)
            logits = self._logits(read.last(1), text, drafted.tokens)
            if grammar:
                logits = logits.replaced(grammar.mask(logits.array, known))
                if grammar.only_end_follows:
                    break
            drawn: Drawn = yield Draw(logits, self._rule, place)
            unread = [drawn]
            drafted.tokens.append(drawn)
            drafted.rows.append(drawn)
            if grammar:
                yield Ready(drawn)
                known.append(drawn.token)
                if grammar.ends_with(known[-1]):
                    break
        return drafted

    def would_propose(
        self, text: Sequence[int], position: int, allowed: Sequence[mx.array | None]
    ) -> mx.array:
        """Read all of the text but its last token; return the shaped logits of the last of these places.

        There are as many as `allowed` has: what may follow there, None for anything. `position` is that of the
        first.
        """
        count = len(allowed)
        text = text[:-1]
        before = text[: len(text) - count + 1]
        self.reader.catch_up(before)
        rows = self.reader.read(text[self.reader.position :]).last(count)
        logits = self._logits(rows, before, text[len(before) :]).array
        if any(may_follow is not None for may_follow in allowed):
            anything = mx.ones((1, self._logits.vocabulary), mx.bool_)
            masks = [anything if may_follow is None else may_follow for may_follow in allowed]
            logits = mx.where(mx.concatenate(masks), logits, -mx.inf)
        return self._rule.shape(logits, position)
