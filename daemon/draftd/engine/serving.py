"""Serves the requests that mlx_lm.server does not batch: all of a worker that drafts, in our own loop.

It takes the place of `ResponseGenerator._serve_single`, in mlx_lm's generation thread, and uses what stands
around that: the queue of answers, the templates, the prompt cache. A request goes through these steps:

1. Its prompt is tokenized; what of it an earlier request has read is taken from the prompt cache.
2. The loop reads the rest and generates. After each pass over the prompt the client learns how far it is, and the
   request ends there if nobody waits for it any more.
3. Each token goes out with its text and, where they are asked for, the likeliest tokens in its place.
4. However it ends, what was read goes to the prompt cache, and what was drafted is counted and reported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm import server

from draftd.engine import records, request_context
from draftd.engine.answers.presence import LeftError
from draftd.engine.generation.acceptance import AcceptanceCount
from draftd.engine.generation.caches.sequence import SequenceCache
from draftd.engine.generation.calibration import costs_of, measure
from draftd.engine.generation.drafters.lookup import LookupDrafter
from draftd.engine.generation.drafters.model import ModelDrafter
from draftd.engine.generation.estimates import ALONE
from draftd.engine.generation.loop import Generation, Token, plain
from draftd.engine.generation.models import LoadedModels
from draftd.engine.generation.reader import Reader
from draftd.engine.grammars.enforcing import grammar_for
from draftd.engine.request import Prompt, logits_of, prompt_of, quantization_of, rule_of, way_of
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER


class Serving:
    """Serves one request after the other. `tick` is called when a request has got on."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._models: LoadedModels | None = None
        self._measured: tuple[float, float] | None = None

    def serve(self, generator: Any, request: tuple[Any, Any, Any], stream: Any) -> None:
        """Serve one request of mlx_lm's ResponseGenerator; what goes wrong is put into the queue of its answer."""
        queue, wanted, arguments = request
        try:
            with mx.stream(stream):
                self._answer(generator, queue.put, wanted, arguments)
        except Exception as error:
            queue.put(error)

    def _answer(self, generator: Any, put: Callable[[Any], None], wanted: Any, arguments: Any) -> None:
        prompt = prompt_of(generator, put, wanted, arguments)
        put(prompt.context)
        models = self._loaded(generator.model_provider)
        generation, store = self._begin(models, generator, prompt, arguments)
        count = AcceptanceCount(generation.policy.fixed if generation.draft else None, generation.rule.name)
        try:
            self._read_prompt(generation, prompt, store)
            for response in self._responses(
                generation, count, generator.model_provider.tokenizer, prompt, arguments
            ):
                put(response)
        except LeftError:
            pass
        finally:
            self._report(generation, count, request_context.of(arguments).profile)
        put(None)
        if generation.lookup:
            generation.lookup.close()
        self._measure(generation, count)
        store(generation.text)

    def _loaded(self, provider: Any) -> LoadedModels:
        known = self._models
        if known is None or known.target is not provider.model or known.draft is not provider.draft_model:
            self._models = known = LoadedModels(provider.model, provider.draft_model, records.say)
            self._measured = None
        return known

    def _begin(
        self, models: LoadedModels, generator: Any, prompt: Prompt, arguments: Any
    ) -> tuple[Generation, _Store]:
        provider, flags = generator.model_provider, generator.cli_args
        cached, rest = generator.prompt_cache.fetch_nearest_cache(provider.model_key, prompt.tokens)
        prompt.context.prompt_cache_count = len(prompt.tokens) - len(rest)
        target, draft = models.adopt(cached or [], prompt.context.prompt_cache_count)
        step = flags.prefill_step_size
        tokenizer = provider.tokenizer
        rule = rule_of(arguments, (*tokenizer.encode("\n"), *tokenizer.eos_token_ids))
        logits = logits_of(provider.model, arguments)
        context = request_context.of(arguments)
        length = max(0, arguments.num_draft_tokens)
        wanted = request_context.ALL_DRAFTERS if context.drafters is None else context.drafters
        drafters = wanted if models.can_draft and length > 0 else frozenset()
        by_model = models.has_drafter and MODEL_DRAFTER in drafters
        grammar = grammar_for(arguments, provider, prompt.context)
        generation = Generation(
            text=list(prompt.tokens),
            max_tokens=arguments.max_tokens,
            target=Reader(provider.model, target, step, quantization_of(flags)),
            rule=rule,
            logits=logits,
            policy=models.policy(
                way_of(arguments),
                fixed=length if by_model and not context.auto else None,
                draws=bool(arguments.sampling.temperature),
                grammar=grammar is not None,
            ),
            draft=ModelDrafter(Reader(provider.draft_model, draft, step), logits, rule)
            if by_model and draft is not None
            else None,
            max_draft=length,
            lookup=LookupDrafter(prompt.tokens, models.answers(context.profile))
            if LOOKUP_DRAFTER in drafters
            else None,
            grammar=grammar,
            check=functools.partial(_check, prompt, self._tick),
        )
        return generation, _Store(generator, target, draft)

    def _read_prompt(self, generation: Generation, prompt: Prompt, store: _Store) -> None:
        """Read the prompt; where caches cannot be cut, store a copy at the end of each message."""
        total = len(prompt.tokens)

        def progress(read: int) -> None:
            prompt.put((generation.target.position, total))
            _check(prompt, self._tick, read)

        for end, kind in prompt.ends:
            if generation.target.position < end < total:
                generation.target.read_to(end, prompt.tokens, progress)
                if not generation.target.cache.can_cut(end - 1):
                    store(prompt.tokens, kind, copied=True)
        generation.target.catch_up(prompt.tokens, progress)
        if total > 1 and not generation.target.cache.can_cut(generation.target.position - 1):
            store(prompt.tokens, copied=True)  # for the same prompt again, and for an answer that is edited

    def _responses(
        self, generation: Generation, count: AcceptanceCount, tokenizer: Any, prompt: Prompt, arguments: Any
    ) -> Iterator[Any]:
        """Yield mlx_lm's responses, one for each token; the last one has a reason to finish."""
        detokenizer = tokenizer.detokenizer
        with closing(generation.generate()) as tokens:
            for token in tokens:
                self._tick()
                count.observe(token.drafter, token.proposed, drafted=token.source != ALONE)
                reason = None
                if token.token in tokenizer.eos_token_ids:
                    reason = "stop"
                else:
                    detokenizer.add_token(token.token)
                    reason = None if generation.left else "length"
                if reason:
                    detokenizer.finalize()
                yield _response(token, detokenizer.last_segment, reason, arguments, tokenizer)
                if reason or prompt.context._should_stop:
                    return

    def _report(self, generation: Generation, count: AcceptanceCount, profile: str | None) -> None:
        """Report what was drafted, with what it cost and was worth as soon as that is known."""
        costs = None
        if self._measured is not None and MODEL_DRAFTER in count.drafters:
            times = generation.policy.costs.at(len(generation.text))
            costs = costs_of(times, count.drafters[MODEL_DRAFTER], self._measured)
        records.report_generation(count, costs, generation.seconds, profile)

    def _measure(self, generation: Generation, count: AcceptanceCount) -> None:
        """Measure what tokens cost, once the first drafted answer is out; what goes wrong here disturbs nobody."""
        if self._measured is None and MODEL_DRAFTER in count.drafters:
            try:
                self._measured = measure(generation)
            except Exception as error:
                records.say(f"what drafting costs could not be measured: {records.describe(error)}")


def _check(prompt: Prompt, tick: Callable[[], None], read: int) -> None:
    """Between two passes over a prompt: raise LeftError if nobody waits for the answer any more."""
    tick()
    if prompt.context._should_stop:
        raise LeftError


def _response(token: Token, text: str, reason: str | None, arguments: Any, tokenizer: Any) -> Any:
    likeliest: Any = ()
    logprob = 0.0
    if arguments.logprobs or arguments.top_logprobs > 0:
        logprobs = token.logprobs()
        logprob = plain(logprobs[token.token])
        likeliest = server._format_top_logprobs(logprobs, arguments.top_logprobs, tokenizer)
    return server.Response(text, token.token, logprob, reason, likeliest)


@dataclass(frozen=True, slots=True)
class _Store:
    """Gives what both models have read of a text to the prompt cache."""

    generator: Any
    target: SequenceCache
    draft: SequenceCache | None

    def __call__(self, text: list[int], kind: str = "assistant", *, copied: bool = False) -> None:
        """Store what was read of a text; a copy of it, if the caches are to read on."""
        caches = [cache for cache in (self.target, self.draft) if cache is not None]
        layers = [layer for cache in caches for layer in (cache.copy() if copied else cache).layers]
        key = self.generator.model_provider.model_key
        self.generator.prompt_cache.insert_cache(key, text[: self.target.position], layers, cache_type=kind)
