"""What one request of mlx_lm.server asks for, in our own terms."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlx_lm import server

from draftd.engine import request_context
from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.sampling import Greedy, Logits, Rule, Seeded, Shape, Speculative
from draftd.engine.grammars.enforcing import form_of
from draftd.engine.model_facts import vocabulary_size

CONTEXT_SIZES = ("repetition_context_size", "presence_context_size", "frequency_context_size")


def wants_our_loop(arguments: Any) -> bool:
    """Whether a request that could be batched is served by our loop, for its lookup or the form of its answer."""
    return bool(request_context.of(arguments).drafters) or form_of(arguments) is not None


def rule_of(arguments: Any, special_tokens: tuple[int, ...]) -> Rule:
    """Return how a request's tokens are chosen, for its `GenerationArguments`; XTC spares the special tokens."""
    sampling = arguments.sampling
    if not sampling.temperature:
        return Greedy()
    seed = arguments.seed
    shape = Shape(
        temperature=sampling.temperature,
        top_p=sampling.top_p or 0.0,
        min_p=sampling.min_p or 0.0,
        top_k=sampling.top_k or 0,
        xtc_probability=sampling.xtc_probability or 0.0,
        xtc_threshold=sampling.xtc_threshold,
        xtc_special_tokens=special_tokens,
        coins=random.getrandbits(64) if seed is None else seed,
    )
    return Speculative(shape) if seed is None else Seeded(shape, seed)


def way_of(arguments: Any) -> tuple[Any, ...]:
    """Return what requests have in common whose drafts are kept about as often."""
    sampling, logits = arguments.sampling, arguments.logits
    shaped = (
        sampling.top_p,
        sampling.min_p,
        sampling.top_k,
        sampling.xtc_probability,
        arguments.seed is None,
    )
    penalties = (logits.repetition_penalty, logits.presence_penalty, logits.frequency_penalty)
    has_form = form_of(arguments) is not None
    return (sampling.temperature, *(shaped if sampling.temperature else ()), *penalties, has_form)


@dataclass(slots=True)
class Prompt:
    """A request's tokens, where its messages end in them, and the way back to its client."""

    tokens: list[int]
    ends: list[tuple[int, str]]  # position and mlx_lm's name for the kind of what ends there
    context: Any  # mlx_lm's GenerationContext
    put: Callable[[Any], None]  # puts something into the queue of its answer


def prompt_of(generator: Any, put: Callable[[Any], None], wanted: Any, arguments: Any) -> Prompt:
    """Read a request's prompt with mlx_lm's ResponseGenerator. Raises RefusedRequestError, or LeftError."""
    provider = generator.model_provider
    tokenizer = provider.tokenizer
    tokens, segments, kinds, state, vision = generator._tokenize(tokenizer, wanted, arguments)
    if vision is not None:
        raise ValueError("images are not supported")
    _, text_machine = generator._make_state_machine(provider.model_key, tokenizer, arguments.stop_words)
    ends, position = [], 0
    for segment, kind in zip(segments, kinds, strict=True):
        position += len(segment)
        ends.append((position, kind))
    context = server.GenerationContext(
        has_tool_calling=tokenizer.has_tool_calling,
        has_thinking=tokenizer.has_thinking,
        tool_parser=tokenizer.tool_parser,
        text_sm=text_machine,
        initial_state=state,
        prompt=tokens,
    )
    return Prompt(tokens, ends, context, put)


def logits_of(model: Any, arguments: Any) -> Logits:
    """Return what bias and penalties make of the model's logits."""
    vocabulary = vocabulary_size(model.args)
    if vocabulary is None:
        raise ValueError("the model does not say how many tokens it has")
    sizes = (getattr(arguments.logits, name) for name in CONTEXT_SIZES)
    return Logits(vocabulary, server._make_logits_processors(arguments), max(sizes))


def quantization_of(flags: Any) -> Quantization | None:
    """Return that of the target model; a draft model's layers are small, and may not fit the size of a group."""
    if not flags.kv_bits:
        return None
    return Quantization(flags.kv_bits, flags.kv_group_size, flags.quantized_kv_start)
