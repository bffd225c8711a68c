"""Serves the requests that mlx_lm.server does not batch: all of a worker that drafts, in our own loop.

It takes the place of `ResponseGenerator._serve_single`, in mlx_lm's generation thread, and uses what stands
around that: the queue of requests, the templates, the prompt cache. mlx_lm calls it with one request, and waits
until it returns. It returns when no request is at work any more:

1. Between the turns of those at work it takes what waits in mlx_lm's queue. One that mlx_lm is to serve, a batched
   one or one for other models, is given back; from then on nothing more is taken, so that its turn comes.
2. Those at work take turns, see `generation/turns`; what one of them does in its turns is in `answering`. Those
   that can be read in one pass have their rounds together, see `generation/together`.
3. Whatever goes wrong in a turn ends that request, and no other one. What goes wrong between turns ends all that
   are at work, since nobody knows what it has left undone, and none that comes later.

How many are at work the daemon decides, who keeps the queue; mlx_lm's flag `--decode-concurrency` is a limit for
whoever asks a worker directly. There is one more limit: the caches of all have to fit in the memory that there is
for them and for cached prompts, when each has become as long as it may. A request for which there is no room waits
until there is, and whoever comes after it waits behind it; one alone is always served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm import server

from draftd.engine import records
from draftd.engine.answering import Answering, TokenCosts
from draftd.engine.answers.presence import LEFT_ATTRIBUTE, LeftError
from draftd.engine.generating import Shared, generation_of
from draftd.engine.generation.models import LoadedModels
from draftd.engine.generation.parts import Part
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.round_times import table_of
from draftd.engine.generation.together import Together, attempt
from draftd.engine.generation.turns import Company, Pace, Pause, Turns, groups
from draftd.engine.model_facts import loaded_record
from draftd.engine.prompt_cache import TruePromptCache
from draftd.engine.request import Prompt, prompt_of

NOT_EXACT = "requests have passes of their own: the model reads several at once otherwise than one by one"

Queued = tuple[Any, Any, Any]  # mlx_lm's queue of an answer, CompletionRequest and GenerationArguments


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A request at work, and what is left of it."""

    answering: Answering
    turns: Generator[Pause | Part, Any, None]


class Serving:
    """Serves requests in turns. `tick` is called whenever one has made progress."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._models: LoadedModels | None = None
        self._costs = TokenCosts()
        self._company = Company(0)
        self._paces = Pace(self._company), Pace(self._company)  # of the target and of the draft model
        self._turns: Turns[Work] = Turns()
        self._together: Together[Work] = Together()
        self._given_back: deque[Queued] = deque()
        self._said_of: LoadedModels | None = None  # that their requests cannot share passes
        self._held: tuple[Prompt, Any] | None = None  # waits for memory

    def serve(self, generator: Any, request: Queued, stream: Any) -> None:
        """Serve a request of mlx_lm's ResponseGenerator, and those that come while any is at work.

        What goes wrong with one is put into the queue of its answer.
        """
        # Of several machines all would have to take the same at the same time.
        takes = not generator._is_distributed
        with mx.stream(stream):
            self._join(generator, request)
            while len(self._turns):
                takes = takes and self._take_waiting(generator, request[2].model)
                self._cycle()
                self._take_held(generator)

    def given_back(self) -> Queued | None:
        """Return the request that was taken, and is to be served by mlx_lm."""
        return self._given_back.popleft() if self._given_back else None

    def _take_waiting(self, generator: Any, model: Any) -> bool:
        """Let in what waits, as far as there is room; return whether more may be let in later."""
        limit = generator.cli_args.decode_concurrency
        while len(self._turns) < limit and self._held is None and not generator._stop:
            waiting = generator._next_request()
            if waiting is None:
                return True
            if _is_for_mlx(generator, waiting, model):
                self._given_back.append(waiting)
                return False
            self._join(generator, waiting)
        return True

    def _join(self, generator: Any, request: Queued) -> None:
        """Begin with a request, or hold it back where its cache would not fit beside the others'."""
        queue, wanted, arguments = request
        try:
            prompt = prompt_of(generator, queue.put, wanted, arguments)
            fits = self._fits(generator, prompt, arguments)
        except Exception as error:
            queue.put(error)
            return
        if fits:
            self._start(generator, prompt, arguments)
        else:
            self._held = prompt, arguments

    def _take_held(self, generator: Any) -> None:
        """Begin with what was held back, once there is room, or forget it if its client has left."""
        if not self._held:
            return
        prompt, arguments = self._held
        if getattr(arguments, LEFT_ATTRIBUTE, False):
            self._held = None
            prompt.put(LeftError())
        elif self._fits(generator, prompt, arguments):
            self._held = None
            self._start(generator, prompt, arguments)

    def _start(self, generator: Any, prompt: Prompt, arguments: Any) -> None:
        try:
            prompt.put(prompt.context)
            self._company.size = len(self._turns) + 1
            answering = self._begin(self._loaded(generator.model_provider), generator, prompt, arguments)
            self._make_room(generator, answering)
        except Exception as error:
            prompt.put(error)
            self._company.size = len(self._turns)
            return
        self._turns.join(Work(answering, answering.in_turns()))

    def _fits(self, generator: Any, prompt: Prompt, arguments: Any) -> bool:
        """Whether the caches of all fit in memory in the end."""
        if not len(self._turns):
            return True
        lengths = [work.answering.max_length for work in self._turns]
        size = self._loaded(generator.model_provider).cache_size
        wanted = size.together([*lengths, len(prompt.tokens) + arguments.max_tokens])
        return wanted <= int(generator.prompt_cache.max_bytes)

    def _cycle(self) -> None:
        """Give each request that writes a round, and one that reads a piece."""
        try:
            self._take_turns()
        except Exception as error:
            self._together = Together()
            for work in list(self._turns):
                with suppress(Exception):  # of what it was in nothing is used any more
                    self._end(work, error)

    def _take_turns(self) -> None:
        together, reading = self._partners(), self._turns.reading
        for works in together:
            for work, pause in self._together.round(works, self._step).items():
                self._turns.paused(work, pause)
        partners = {work for works in together for work in works}
        for work in [*(work for work in self._turns.writing if work not in partners), *reading]:
            self._go_on(work)
        self._together.forget_empty()

    def _partners(self) -> list[list[Work]]:
        """Return which requests have their rounds together, with the target model reading them in one batch."""
        models = self._models
        if models is None or not self._company.crowded:
            return []
        lengths = {
            work: len(work.answering.generation.text)
            for work in self._turns.writing
            if self._can_join(work.answering.generation.target, models, draft=False)
        }
        together = []
        for works in groups(lengths):
            size = table_of(lengths[works[0]])
            if len(works) > 1 or works[0].answering.generation.target.is_joined:
                together.append([work for work in works if self._is_put_together(models, work, size)])
        return together

    def _is_put_together(self, models: LoadedModels, work: Work, size: int) -> bool:
        """Let both models read a sequence in a batch, the draft model if it has little to read before.

        Where that fails the request has ended.
        """
        generation = work.answering.generation
        draft = generation.draft
        try:
            self._together.put(generation.target, models.target, size)
            if draft and not generation.draft_is_late and self._can_join(draft.reader, models, draft=True):
                self._together.put(draft.reader, models.draft, size)
        except Exception as error:
            self._end(work, error)
            return False
        return True

    def _can_join(self, reader: Reader, models: LoadedModels, *, draft: bool) -> bool:
        """Whether a sequence can be read in one pass with others. That it cannot is said once."""
        exact = reader.can_join and models.reads_rows(draft=draft, quantization=reader.quantization)
        if not exact and not draft and self._said_of is not models:
            self._said_of = models
            why = models.target_caches.why_alone or NOT_EXACT
            records.report(loaded_record(models.target, models.draft, why))
        return exact

    def _go_on(self, work: Work) -> None:
        """Give a request its turn, on its own."""
        if not self._company.crowded:
            for reader in work.answering.readers:
                reader.leave()
            self._together.forget_empty()  # before it needs memory for more
        part = self._step(work, None)
        while part is not None and not isinstance(part, Pause):
            part = self._step(work, attempt(part, crowded=self._company.crowded))
        if part is not None:
            self._turns.paused(work, part)

    def _step(self, work: Work, reply: Any) -> Pause | Part | None:
        """Send a request what it asked for, or the error instead; return what it needs next, None at its end."""
        try:
            if isinstance(reply, Exception):
                raise reply
            return work.turns.send(reply)
        except StopIteration:
            self._end(work)
        except Exception as error:
            self._end(work, error)
        return None

    def _end(self, work: Work, error: Exception | None = None) -> None:
        self._turns.leave(work)
        self._company.size = len(self._turns)
        if error is not None:
            with suppress(Exception):  # its caches may be in any state
                work.turns.close()
            work.answering.prompt.put(error)
        for reader in work.answering.readers:
            reader.close()

    def _make_room(self, generator: Any, beginning: Answering) -> None:
        """Keep the prompt cache and what is at work, and begins, within the memory that there is for both."""
        at_work = self._at_work() + beginning.cache_bytes
        generator.prompt_cache.trim_to(n_bytes=max(0, generator.prompt_cache.max_bytes - at_work))

    def _at_work(self) -> int:
        """How many bytes the caches of the requests at work take."""
        return self._together.nbytes + sum(work.answering.cache_bytes for work in self._turns)

    def _loaded(self, provider: Any) -> LoadedModels:
        known = self._models
        if known is None or known.target is not provider.model or known.draft is not provider.draft_model:
            self._models = known = LoadedModels(provider.model, provider.draft_model, records.say)
            self._costs = TokenCosts()
            self._together = Together()
            self._paces = Pace(self._company), Pace(self._company)
        return known

    def _begin(self, models: LoadedModels, generator: Any, prompt: Prompt, arguments: Any) -> Answering:
        provider = generator.model_provider
        cache, company = generator.prompt_cache, {}
        if self._company.crowded and isinstance(cache, TruePromptCache):  # mlx_lm's own knows nothing of this
            company["at_work"] = self._at_work()
        cached, rest = cache.fetch_nearest_cache(provider.model_key, prompt.tokens, **company)
        prompt.context.prompt_cache_count = len(prompt.tokens) - len(rest)
        target, draft = models.adopt(cached or [], prompt.context.prompt_cache_count)
        in_use = [work.answering.generation.policy for work in self._turns]
        shared = Shared(self._company, self._paces, in_use)
        generation = generation_of(models, generator, prompt, arguments, (target, draft), shared)
        answering = Answering(generator, prompt, arguments, generation, draft, self._costs, self._tick)
        generation.check = answering.check
        return answering


def _is_for_mlx(generator: Any, request: Queued, model: Any) -> bool:
    """Whether a request is batched by mlx_lm, or is for other models than the loaded ones."""
    _, wanted, arguments = request
    batched = generator._is_batchable(arguments) and not any(server._image_parts(wanted.messages))
    return batched or arguments.model != model
