"""A round of a generation, once it is decided how to go on: one token alone, or a draft and its verification."""

from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import mlx.core as mx

from draftd.engine.generation.choices import ALONE, Choice
from draftd.engine.generation.drafters.grammar import Grammar
from draftd.engine.generation.drafters.lookup import LookupDrafter
from draftd.engine.generation.drafters.model import Draft, ModelDrafter
from draftd.engine.generation.parts import Draw, Part, Pass, Ready, Token, Verified, Verify
from draftd.engine.generation.policy import DraftPolicy
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.rows import Drawn, Rows, Tokens
from draftd.engine.generation.sampling import Logits, Rule
from draftd.engine.generation.turns import Company
from draftd.protocol import GRAMMAR_DRAFTER, LOOKUP_DRAFTER, MODEL_DRAFTER

MAX_FORCED = 64  # tokens that a grammar leaves no choice about, in one round
MAX_FORCED_IN_COMPANY = 8  # where other rows of the pass are padded to as many
LOOK_BACK = 32  # tokens generated alone that are compared with what the draft model would have proposed


@dataclass(frozen=True, slots=True)
class Found:
    """What a lookup proposes, and how many tokens before it agree."""

    match: int
    tokens: list[int]


Ahead = tuple[Drawn, Rows]  # a token, and the logits at its place: still being computed


@dataclass(slots=True)
class Rounds:
    """What a generation is made of, and what happens in its rounds; when which comes is the affair of `loop`.

    `text` begins as the prompt, which is not empty.
    """

    text: list[int]
    max_tokens: int
    target: Reader
    rule: Rule
    logits: Logits
    policy: DraftPolicy
    draft: ModelDrafter | None = None
    max_draft: int = 0
    lookup: LookupDrafter | None = None
    grammar: Grammar | None = None
    company: Company = field(default_factory=Company)
    prompt_length: int = field(init=False)
    # The last tokens that came alone, and what a grammar allowed in their places.
    _lately: list[tuple[Drawn, mx.array | None]] = field(init=False, default_factory=list)
    _forced: list[int] = field(init=False, default_factory=list)  # by a grammar, when the round was decided

    def __post_init__(self) -> None:
        self.prompt_length = len(self.text)

    @property
    def position(self) -> int:
        """Of the next token in the answer."""
        return len(self.text) - self.prompt_length

    @property
    def left(self) -> int:
        """Tokens that may still come."""
        return self.max_tokens - self.position

    def _take(self, token: int) -> None:
        self.text.append(token)
        if self.lookup:
            self.lookup.extend([token])
        if self.grammar:
            self.grammar.take(token)

    # --- alone -----------------------------------------------------------------------------------------------

    def _alone(self, ahead: Ahead | None, *, goes_on: bool) -> Generator[Token | Part, Any, Ahead | None]:
        """Give out one token; return what is computed of the next one, if it goes on."""
        drawn, logits = ahead or (yield from self._next(self.text[self.target.position :], ()))
        following = (yield from self._next([drawn], [drawn])) if goes_on and self.left > 1 else None
        yield Ready(drawn)
        self._take(drawn.token)
        self._came_alone(drawn)
        yield Token(drawn.token, logits, ALONE, ALONE, 0)
        return following

    def _next(self, unread: Tokens, ahead: Tokens) -> Generator[Part, Any, Ahead]:
        """Return the token after the unread ones, of which those `ahead` are not in the text yet, and its logits.

        Both are still being computed.
        """
        read: Rows = yield Pass(self.target, unread)
        logits = self.logits(read.last(1), self.text, ahead)
        drawn: Drawn = yield Draw(logits, self.rule, self.position + len(ahead))
        return drawn, logits

    def _came_alone(self, drawn: Drawn, allowed: mx.array | None = None) -> None:
        if self.draft:
            self._lately = [*self._lately[1 - LOOK_BACK :], (drawn, allowed)]

    def _compare(self, found: Found | None, count: int) -> None:
        """Judge a lookup that was not verified by the tokens that came."""
        if found:
            pairs = zip(found.tokens[:count], self.text[-count:], strict=True)
            kept = sum(takewhile(bool, (proposed == came for proposed, came in pairs)))
            self.policy.judged(LOOKUP_DRAFTER, found.match, count, kept)

    def _round(self, choice: Choice, found: Found | None) -> Generator[Token | Part, Any, Choice]:
        """Give out what is kept of one draft, and the token after it; return what it came to.

        Under a grammar there may be no draft, or a shorter one.
        """
        position = self.position
        by_model = choice.source == MODEL_DRAFTER
        try:
            draft = yield from self._propose(choice, found, choice.length)
            forced, proposed = draft.forced, len(draft.tokens) - draft.forced
            choice = Choice(choice.source, proposed) if proposed else Choice(ALONE)
            kept, after, logits = yield from self._verify(draft, position)
            if choice.source != ALONE and len(kept) >= forced:
                self.policy.judged(choice.source, found.match if found else 0, proposed, len(kept) - forced)
            for place, token in enumerate(kept):
                self._take(token)
                by_grammar = place < forced
                source = GRAMMAR_DRAFTER if by_grammar else choice.source
                yield Token(token, logits.part(place, 1), source, source, forced if by_grammar else proposed)
        finally:
            for reader in [self.target, *([self.draft.reader] if self.draft and by_model else [])]:
                reader.end_round(len(self.text))
        if self.left > 0:
            self._take(after)
            by_grammar = not proposed or len(kept) < forced
            source = GRAMMAR_DRAFTER if forced and by_grammar else choice.source
            yield Token(after, logits.part(len(kept), 1), ALONE, source, forced if by_grammar else proposed)
        if found and choice.source != LOOKUP_DRAFTER:
            self._compare(found, min(len(kept) + 1, self.position - position))
        return Choice(GRAMMAR_DRAFTER, forced) if forced else choice

    def _verify(self, draft: Draft, position: int) -> Generator[Part, Any, tuple[list[int], int, Rows]]:
        """Return the draft tokens that are kept, the token after them, and the target model's logits."""
        unread = self.target.begin_round(self.text)
        read: Rows = yield Pass(self.target, [*unread, *draft.tokens])
        logits = self.logits(read.last(len(draft.tokens) + 1), self.text, draft.tokens)
        allowed = self._allowed(logits, draft)
        if not draft.tokens:
            drawn: Drawn = yield Draw(allowed, self.rule, position)
            yield Ready(drawn)
            self._came_alone(drawn, self.grammar.may_follow if self.grammar else None)
            return [], drawn.token, logits
        self._lately = []
        verified: Verified = yield Verify(allowed, self.rule, position, draft.rows)
        return verified.kept, verified.after, logits

    def _propose(self, choice: Choice, found: Found | None, length: int) -> Generator[Part, Any, Draft]:
        forced = self._forced if choice.source in (GRAMMAR_DRAFTER, MODEL_DRAFTER) else []
        if choice.source == MODEL_DRAFTER and self.draft:
            length = min(length, self.left - len(forced))
            return (yield from self.draft.proposing(self.text, length, self.position, self.grammar, forced))
        tokens = forced
        if found and choice.source == LOOKUP_DRAFTER:
            tokens = found.tokens[: min(length, self.left)]
            tokens = self.grammar.allowed(tokens) if self.grammar else tokens
        return Draft(list(tokens), [], len(forced))

    # --- under a grammar -------------------------------------------------------------------------------------

    def _find_forced(self) -> list[int]:
        """Return the tokens that a grammar leaves no choice about, as many as may be read with what is unread."""
        if not self.grammar:
            return []
        limit = min(MAX_FORCED_IN_COMPANY if self.company.crowded else MAX_FORCED, self.left)
        unread = self.target.unread(self.text)
        return self.grammar.forced(max(0, self.target.most_at_once(unread + limit) - unread))

    def _allowed(self, logits: Rows, draft: Draft) -> Rows:
        if not self.grammar:
            return logits
        rows = logits.array
        mx.async_eval(rows)  # type: ignore[no-untyped-call]
        drafted = [token if isinstance(token, int) else token.token for token in draft.tokens]
        return logits.replaced(self.grammar.mask(rows, drafted))

    def _end(self, grammar: Grammar) -> Token:
        """Give out the token that ends an answer to which nothing can be added: there is nothing to compute."""
        self.text.append(grammar.end)
        logits = mx.where(mx.arange(self.logits.vocabulary) == grammar.end, 0.0, -mx.inf)
        return Token(grammar.end, Rows.of(logits[None]), ALONE, ALONE, 0)
