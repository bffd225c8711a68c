"""Drafts from a draft model: a smaller model with the tokenizer of the target model."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from draftd.engine.generation.drafters.grammar import Grammar
from draftd.engine.generation.parts import Begun, Pass
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.sampling import Logits, Rule


@dataclass(frozen=True, slots=True)
class Draft:
    """Proposed tokens, (1,) each, and the row of shaped logits that each was drawn from; none for a lookup.

    A grammar has forced the first `forced` of them.
    """

    tokens: list[mx.array]
    rows: list[mx.array]
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
    ) -> Generator[Begun | Pass, Any, Draft]:
        """Draft what is forced after the text, and so many tokens more; `position` is that of the first one.

        Yields the passes of the draft model, and its tokens, which may begin to be computed. Nothing is waited for.
        Under a grammar each token has to be known before the next one, and the draft may end early, where the
        answer does.
        """
        token = self.reader.begin_round(text)
        drafted = Draft([mx.array([each], mx.uint32) for each in forced], [], len(forced))
        if forced:
            token = mx.concatenate([token, *drafted.tokens])
            places = mx.arange(self._logits.vocabulary)
            drafted.rows.extend(mx.where(places == each, 0.0, -mx.inf)[None] for each in forced)
        known = list(forced)
        for place in range(len(forced), len(forced) + length):
            read: mx.array = yield Pass(self.reader, token, by_draft=True)
            logits = self._logits.last(read[-1:], text, drafted.tokens)
            if grammar:
                logits = grammar.mask(logits, known)
                if grammar.only_end_follows:
                    break
            row = self._rule.shape(logits, position + place)
            token = self._rule.draw(row, position + place)
            yield Begun([token])
            drafted.tokens.append(token)
            drafted.rows.append(row)
            if grammar:
                known += token.tolist()  # type: ignore[arg-type]
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
        self.reader.catch_up(text[: len(text) - count + 1])
        rows = self.reader.read(mx.array(list(text[self.reader.position :]), mx.uint32))[-count:]
        shaped = []
        for place in range(count):
            logits = self._logits(rows[place : place + 1], text[: len(text) - count + place + 1])
            if (may_follow := allowed[place]) is not None:
                logits = mx.where(may_follow, logits, -mx.inf)
            shaped.append(self._rule.shape(logits, position + place))
        return mx.concatenate(shaped)
