"""The generation of a request: how it samples, who drafts for it, and what it shares with others at work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from draftd.engine import request_context
from draftd.engine.generation.caches.sequence import SequenceCache
from draftd.engine.generation.drafters.lookup import LookupDrafter
from draftd.engine.generation.drafters.model import ModelDrafter
from draftd.engine.generation.loop import Generation
from draftd.engine.generation.models import LoadedModels
from draftd.engine.generation.policy import DraftPolicy
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.turns import Company, Pace
from draftd.engine.grammars.enforcing import grammar_for
from draftd.engine.request import Prompt, logits_of, quantization_of, rule_of, way_of
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER


@dataclass(frozen=True, slots=True)
class Shared:
    """What the requests at work have in common: the paces are those of the target and of the draft model; `in_use`
    are the policies of the others.
    """

    company: Company
    paces: tuple[Pace, Pace]
    in_use: Sequence[DraftPolicy]


def generation_of(
    models: LoadedModels,
    generator: Any,
    prompt: Prompt,
    arguments: Any,
    caches: tuple[SequenceCache, SequenceCache | None],
    shared: Shared,
) -> Generation:
    """Return the generation of a request of mlx_lm's ResponseGenerator; `caches` are those of both models."""
    provider, flags, context = generator.model_provider, generator.cli_args, request_context.of(arguments)
    (target, draft), step = caches, flags.prefill_step_size
    rule = rule_of(arguments, (*provider.tokenizer.encode("\n"), *provider.tokenizer.eos_token_ids))
    logits = logits_of(provider.model, arguments)
    length = max(0, arguments.num_draft_tokens)
    wanted = request_context.ALL_DRAFTERS if context.drafters is None else context.drafters
    drafters = wanted if models.can_draft and length > 0 else frozenset()
    by_model = models.has_drafter and MODEL_DRAFTER in drafters
    grammar = grammar_for(arguments, provider, prompt.context)
    return Generation(
        text=list(prompt.tokens),
        max_tokens=arguments.max_tokens,
        target=Reader(provider.model, target, step, quantization_of(flags), shared.paces[0]),
        rule=rule,
        logits=logits,
        policy=models.policy(
            way_of(arguments),
            fixed=length if by_model and not context.auto else None,
            draws=bool(arguments.sampling.temperature),
            in_use=shared.in_use,
            grammar=grammar is not None,
        ),
        draft=ModelDrafter(Reader(provider.draft_model, draft, step, pace=shared.paces[1]), logits, rule)
        if by_model and draft is not None
        else None,
        max_draft=length,
        lookup=LookupDrafter(prompt.tokens, models.answers(context.profile))
        if LOOKUP_DRAFTER in drafters
        else None,
        grammar=grammar,
        company=shared.company,
    )
