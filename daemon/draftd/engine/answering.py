"""One request at work, from its prompt to the end of its answer, in turns.

1. What of its prompt an earlier request has read is taken from the prompt cache, as a copy: no two requests share
   anything that is written to.
2. The rest is read. After each step the client learns how far it is, and the request ends there if nobody waits for
   it any more.
3. Each token goes out with its text and, where they are asked for, the likeliest tokens in its place.
4. However it ends, what was read goes to the prompt cache, and what was drafted is counted and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from mlx_lm import server

from draftd.engine import records, request_context
from draftd.engine.answers.drafted_text import DRAFTER_ATTRIBUTE
from draftd.engine.answers.presence import LeftError
from draftd.engine.answers.timings import COUNT_ATTRIBUTE
from draftd.engine.generation.acceptance import AcceptanceCount
from draftd.engine.generation.caches.layers import leaves
from draftd.engine.generation.caches.ragged import RaggedRow
from draftd.engine.generation.caches.sequence import SequenceCache
from draftd.engine.generation.calibration import costs_of, measure
from draftd.engine.generation.choices import ALONE
from draftd.engine.generation.loop import Generation
from draftd.engine.generation.parts import Part, Pass, Token
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.turns import Pause
from draftd.engine.request import Prompt
from draftd.protocol import MODEL_DRAFTER


@dataclass(slots=True)
class TokenCosts:
    """What single tokens of two loaded models cost: seconds of one of the target model, and of a draft token."""

    measured: tuple[float, float] | None = None


@dataclass(slots=True, eq=False)
class Answering:
    """One request. `tick` is called whenever it has made progress."""

    generator: Any  # mlx_lm's ResponseGenerator
    prompt: Prompt
    arguments: Any
    generation: Generation
    draft_cache: SequenceCache | None  # of the draft model: it is kept where that does not draft
    costs: TokenCosts
    tick: Callable[[], None]
    count: AcceptanceCount = field(init=False)

    def __post_init__(self) -> None:
        generation = self.generation
        self.count = AcceptanceCount(
            generation.policy.fixed if generation.draft else None, generation.rule.name
        )
        setattr(self.prompt.context, COUNT_ATTRIBUTE, self.count)

    def in_turns(self) -> Generator[Pause | Part, Any, None]:
        """Put the answer into its queue; yield what its generation needs, and wherever others may have their turns.

        Whatever is raised ends it.
        """
        try:
            yield from self._read_prompt()
            yield from self._give_answer()
        except LeftError:
            pass
        finally:
            self._report()
        self.prompt.put(None)
        if self.generation.lookup:
            self.generation.lookup.close()
        self._measure()
        self._store(self.generation.text)

    def check(self, _: int) -> None:
        """Between two passes over a prompt: raise LeftError if nobody waits for the answer any more."""
        self.tick()
        if self.prompt.context._should_stop:
            raise LeftError

    @property
    def readers(self) -> list[Reader]:
        """The target model's, and the draft model's if it drafts."""
        draft = self.generation.draft
        return [self.generation.target, *([draft.reader] if draft else [])]

    @property
    def max_length(self) -> int:
        """How many tokens its text may have in the end."""
        return self.generation.prompt_length + self.generation.max_tokens

    @property
    def cache_bytes(self) -> int:
        """How much memory the caches of both models take; 0 for those that read in a batch, which has its own."""
        alone = [cache for cache in self._caches() if isinstance(cache, SequenceCache)]
        return sum(leaf.nbytes for cache in alone for leaf in leaves(cache.layers))

    def _caches(self) -> list[SequenceCache | RaggedRow]:
        """Of both models, also where the draft model does not draft for this request."""
        caches = [reader.cache for reader in self.readers]
        return [*caches, self.draft_cache] if self.draft_cache and len(caches) == 1 else caches

    def _read_prompt(self) -> Iterator[Pause]:
        """Read the prompt; where caches cannot be cut back to it later, store a copy at the end of each part."""
        target, tokens = self.generation.target, self.prompt.tokens
        total = len(tokens)
        for end, kind in self.prompt.ends:
            if target.position < end < total:
                yield from self._read_to(end)
                if not target.cache.will_cut(end, total):
                    self._store(tokens, kind, copied=True)
        yield from self._read_to(total - 1)
        if total > 1 and not target.cache.will_cut(target.position - 1, self.max_length):
            self._store(tokens, copied=True)  # for the same prompt again, and for an answer that is edited
        if self._is_ahead and (draft := self.generation.draft):
            for _ in self.generation.reading(draft.reader, total - 1):
                yield Pause.READING

    @property
    def _is_ahead(self) -> bool:
        """Whether nobody waits for the answer: both models are to have read the prompt, and nothing is counted."""
        return request_context.of(self.arguments).ahead

    def _read_to(self, end: int) -> Iterator[Pause]:
        total = len(self.prompt.tokens)
        for _ in self.generation.reading(self.generation.target, end):
            self.prompt.put((self.generation.target.position, total))
            yield Pause.READING if self.generation.target.position < total - 1 else Pause.ROUND

    def _give_answer(self) -> Generator[Pause | Part, Any, None]:
        """Put mlx_lm's responses into the queue, one for each token; the last one has a reason to finish."""
        detokenizer = self.generator.model_provider.tokenizer.detokenizer
        with closing(self.generation.in_turns()) as parts, suppress(StopIteration):
            reply: Any = None
            while True:
                part = parts.send(reply)
                reply = None
                if not isinstance(part, Token):
                    reply = yield part
                    if isinstance(part, Pass) and not part.by_draft:
                        self.count.read(part.reader.rows)
                elif self._give(part, detokenizer) or self.prompt.context._should_stop:
                    return

    def _give(self, token: Token, detokenizer: Any) -> bool:
        """Put one response into the queue; return whether it is the last one."""
        self.tick()
        self.count.observe(token.drafter, token.proposed, drafted=token.source != ALONE)
        tokenizer = self.generator.model_provider.tokenizer
        reason = None
        if token.token in tokenizer.eos_token_ids:
            reason = "stop"
        else:
            detokenizer.add_token(token.token)
            reason = None if self.generation.left else "length"
        if reason:
            detokenizer.finalize()
        self.prompt.put(_response(token, detokenizer.last_segment, reason, self.arguments, tokenizer))
        return reason is not None

    def _report(self) -> None:
        """Report what was drafted, with what it cost and was worth as soon as that is known."""
        if self._is_ahead:
            return
        costs, tallies = None, self.count.drafters
        if self.costs.measured is not None and MODEL_DRAFTER in tallies:
            times = self.generation.policy.costs.at(len(self.generation.text))
            costs = costs_of(times, tallies[MODEL_DRAFTER], self.costs.measured)
        profile = request_context.of(self.arguments).profile
        records.report_generation(self.count, costs, self.generation.seconds, profile)

    def _measure(self) -> None:
        """Measure what tokens cost, once the first drafted answer is out and nobody else waits.

        What goes wrong here disturbs nobody.
        """
        crowded = self.generation.company.crowded
        if self.costs.measured is None and MODEL_DRAFTER in self.count.drafters and not crowded:
            try:
                self.costs.measured = measure(self.generation)
            except Exception as error:
                records.say(f"what drafting costs could not be measured: {records.describe(error)}")

    def _store(self, text: list[int], kind: str = "assistant", *, copied: bool = False) -> None:
        """Give what both models have read of a text to the prompt cache; a copy of it, if they are to read on."""
        layers = [
            layer
            for cache in self._caches()
            for layer in (cache.copy() if copied and isinstance(cache, SequenceCache) else cache).layers
        ]
        key = self.generator.model_provider.model_key
        self.generator.prompt_cache.insert_cache(
            key, text[: self.generation.target.position], layers, cache_type=kind
        )


def _response(token: Token, text: str, reason: str | None, arguments: Any, tokenizer: Any) -> Any:
    likeliest: Any = ()
    logprob: Any = 0.0
    if arguments.logprobs or arguments.top_logprobs > 0:
        logprobs = token.logprobs()
        logprob = logprobs[token.token].item()
        likeliest = server._format_top_logprobs(logprobs, arguments.top_logprobs, tokenizer)
    response = server.Response(text, token.token, logprob, reason, likeliest)
    if token.source != ALONE:
        setattr(response, DRAFTER_ATTRIBUTE, token.source)
    return response
