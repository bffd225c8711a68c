"""Generation in rounds: a draft, one pass of the target model that verifies it, what is kept, and the rest
forgotten.

Theory of operation. The text is the prompt and what was generated since. Each model has read a part of it, and the
target model always all but the last token, or (on its own) all of it:

1. The policy chooses a source of drafts and a length, or to go on alone.
2. A draft model reads what it has not read, and proposes; a lookup has its proposal ready.
3. The target model reads what it has not read and the whole draft in one pass. The rule says how many draft tokens
   are kept, and which token comes after them. The device is waited for once in a round, here.
4. What is kept goes to the text as it is given out. Whatever ends the round, even a consumer that leaves in the
   middle of it, both models forget what they have read beyond the text.

Alone, the next token is being computed while the last one is given out, so that the device never waits. A draft
model reads nothing meanwhile, the prompt included: it catches up when it is asked again, which is timed by itself.

Under a grammar what it forbids is neither drafted nor chosen. What it leaves no choice about is drafted whatever
the policy says; where that would have the draft model propose, it goes on from there in the same round. What may
follow is known only once the tokens before are: so nothing is computed ahead, and a draft model is waited for at
each of its tokens.

Several requests take turns: `in_turns` says where one may be left for the others, with all that it has begun at an
end, and how long that takes is not timed. In a turn of its own nothing is computed ahead: others would wait for it.
"""

import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx

from draftd.engine.generation.choices import ALONE, MAX_LATE, REVIEW, Choice, Situation
from draftd.engine.generation.parts import Deciding, Decision, Part, Token
from draftd.engine.generation.policy import LENGTHS
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.rounds import Ahead, Found, Rounds
from draftd.engine.generation.together import answer
from draftd.engine.generation.turns import Pause
from draftd.protocol import GRAMMAR_DRAFTER, MODEL_DRAFTER

Parts = Generator["Token | Pause | Part", Any, None]


@dataclass(slots=True)
class Generation(Rounds):
    """One request in generation.

    `check` is called between the passes over a prompt, with the tokens that were read; what it raises ends the
    request.
    """

    check: Callable[[int], None] = lambda _: None
    seconds: float = field(init=False, default=0.0)  # that its rounds have taken

    def generate(self) -> Generator[Token, None, None]:
        """Yield the answer, `max_tokens` at most. Closing it leaves both caches in order."""
        with closing(self.in_turns()) as parts:
            reply: Any = None
            with suppress(StopIteration):
                while True:
                    part = parts.send(reply)
                    reply = None
                    if isinstance(part, Token):
                        yield part
                    elif not isinstance(part, Pause):
                        reply = answer(part, crowded=self.company.crowded)

    def in_turns(self) -> Parts:
        """Yield the answer, what is needed on the way, and a pause wherever others may have their turns.

        See `generate` and `parts`.
        """
        yield from self.reading(self.target, len(self.text) - 1)
        self.policy.begin()
        ahead: Ahead | None = None
        while self.left > 0:
            if self.grammar and self.grammar.complete:
                if not self.grammar.ends_with(self.text[-1]):
                    yield self._end(self.grammar)
                return
            began = time.perf_counter()
            found = self._find()
            now = self._situation(found)
            decision = yield from self._decide(now, ahead=ahead is not None)
            choice = decision.choice
            started = time.perf_counter()
            # To decide is a part of a round: the device goes on meanwhile alone, and waits before a draft.
            deciding = 0.0 if self.company.crowded else started - began
            if choice.source == REVIEW:
                yield from self._review()
                self._draft_has_read(now, started)
                continue
            if choice.source == MODEL_DRAFTER and (yield from self._let_draft_catch_up()):
                self._draft_has_read(now, started)
                if decision.shared:
                    continue  # the others have gone on
            started, was_ahead = time.perf_counter(), ahead is not None
            if not self.grammar and (choice.source == ALONE or was_ahead):
                goes_on = decision.goes_on and choice.source == ALONE
                choice, ahead = Choice(ALONE), (yield from self._alone(ahead, goes_on=goes_on))
                self._compare(found, 1)
            else:
                choice = yield from self._round(choice, found)
            took = time.perf_counter() - started + deciding
            self.seconds += took
            # The first of a stretch alone computes two tokens, and the last one none.
            tells = choice.source != GRAMMAR_DRAFTER and was_ahead == (ahead is not None)
            if not decision.shared and tells:
                self.policy.took(choice, now.depth, took)
                if choice.source == ALONE:
                    self.target.pace.took(1, took)
            yield Pause.ROUND

    def reading(self, reader: Reader, end: int) -> Generator[Pause, None, None]:
        """Let a model read the first `end` tokens of the text, with a pause after each step."""
        for count in reader.steps_to(end, self.text):
            self.check(count)
            yield Pause.READING if reader.position < end else Pause.ROUND

    def _decide(self, now: Situation, *, ahead: bool) -> Generator[Part, Any, Decision]:
        """Ask how to go on; where a grammar leaves no choice, only whether the draft model goes on from there."""
        forced = self._forced = self._find_forced()
        if forced and (self.company.crowded or not self.draft):
            return Decision(Choice(GRAMMAR_DRAFTER, len(forced)), goes_on=False)
        decision: Decision = yield Deciding(self.policy, now, ahead)
        choice = self._possible(decision.choice, len(forced))
        if forced and choice.source != MODEL_DRAFTER:
            choice = Choice(GRAMMAR_DRAFTER, len(forced))
        return decision if choice == decision.choice else replace(decision, choice=choice)

    def _find(self) -> Found | None:
        """Look up what may follow. It is taken down at once: the place may be gone once others had their turns."""
        match = self.lookup.find() if self.lookup else None
        return Found(match.length, match.draft(LENGTHS[-1])) if match else None

    def _situation(self, found: Found | None) -> Situation:
        return Situation(
            depth=len(self.text),
            left=self.left,
            match=found.match if found else 0,
            lookup=len(found.tokens) if found else 0,
            model=self.max_draft if self.draft else 0,
            unread=self.draft.reader.unread(self.text) if self.draft else 0,
        )

    def _possible(self, choice: Choice, forced: int) -> Choice:
        """Go on alone where the layers are quantized in the middle of a draft: its tokens would see what is not.

        So does the first token where the draft model would have to take turns to read the prompt before it.
        """
        tokens = self.target.unread(self.text) + forced + choice.length
        first = self.company.crowded and not self.position
        waits = first and choice.source == MODEL_DRAFTER and self.draft_is_late
        possible = not choice.length or self.target.most_at_once(tokens) == tokens
        return choice if possible and not waits else Choice(ALONE)

    @property
    def draft_is_late(self) -> bool:
        """Whether the draft model has to read more before it can draft than is read within a round."""
        return self.draft is not None and self.draft.reader.unread(self.text) > MAX_LATE

    def _let_draft_catch_up(self) -> Generator[Pause, None, bool]:
        """Let the draft model read what would be too much within a round; return whether it was."""
        self._lately = []
        if late := self.draft_is_late and self.draft is not None:
            yield from self.reading(self.draft.reader, len(self.text) - 1)
        return late

    def _draft_has_read(self, then: Situation, started: float) -> None:
        """Tell the policy how long that took. Beside others it is not known: they had their turns in between."""
        if not self.company.crowded:
            self.policy.took(Choice(REVIEW, then.unread), then.depth, time.perf_counter() - started)

    def _review(self) -> Generator[Pause, None, None]:
        """Let the draft model read what came alone, and the policy know what it would have proposed for it."""
        count = len(self._lately)
        if self.draft and count and self.draft.reader.unread(self.text) > count:
            position = self.position - count
            yield from self.reading(self.draft.reader, len(self.text) - count - 1)
            drawn, allowed = zip(*self._lately, strict=True)
            shares = self.rule.agreement(
                mx.concatenate([one.row for one in drawn]),
                self.draft.would_propose(self.text, position, allowed),
                mx.array(self.text[-count:], mx.uint32),
                position,
            )
            self.policy.would_have_kept(shares.tolist())  # type: ignore[arg-type]
        yield from self._let_draft_catch_up()
