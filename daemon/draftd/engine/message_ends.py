"""Where messages end in a prompt: there checkpoints are kept, for conversations that are edited in the middle.

Layers that cannot be cut (states, windows) serve a prompt only up to a checkpoint that was stored. mlx_lm divides a
prompt into the system's part and the rest. A conversation that grows here leaves a checkpoint with each turn; one
that comes whole, as an old one does that is opened again, would leave none. So the rest is divided before some of
the user's messages: the last, the second last, the fourth last. After an edit the text is read again from the
nearest of them. Each costs a copy of the layers, so there are not more, and none close to another.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise, takewhile
from typing import Any

from mlx_lm.models.cache import KVCache, QuantizedKVCache, make_prompt_cache

from draftd.engine import records
from draftd.engine.generation.caches.layers import leaves

BACK = (1, 2, 4)  # which of the user's messages, counted from the last
MIN_TOKENS = 512  # between two checkpoints: to read less again takes little
Segments = list[list[int]]


def dividing(tokenize: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `_tokenize` of mlx_lm's ResponseGenerator, which also returns the parts of a prompt and their kinds."""

    @functools.wraps(tokenize)
    def _tokenize(self: Any, tokenizer: Any, request: Any, args: Any) -> Any:
        prompt, segments, kinds, state, vision = tokenize(self, tokenizer, request, args)
        if vision is None and len(prompt) >= 2 * MIN_TOKENS and needs_checkpoints(self.model_provider.model):
            try:
                ends = message_ends(prompt, request.messages, _rendering(self, tokenizer, request, args))
            except Exception as error:  # a template may refuse a part of a conversation
                records.say(f"no checkpoints are kept at the ends of messages: {records.describe(error)}")
            else:
                segments, kinds = divided(segments, kinds, ends)
        return prompt, segments, kinds, state, vision

    return _tokenize


def needs_checkpoints(model: Any) -> bool:
    """Whether any of a model's layers cannot be cut to any length."""
    return not all(type(leaf) in {KVCache, QuantizedKVCache} for leaf in leaves(make_prompt_cache(model)))


def message_ends(
    prompt: Sequence[int],
    messages: Sequence[dict[str, Any]] | None,
    render: Callable[[Sequence[dict[str, Any]]], Sequence[int]],
) -> list[int]:
    """Return at which tokens of the prompt checkpoints are to be, in order; `render` tokenizes some messages."""
    users = [n for n, message in enumerate(messages or ()) if message["role"] == "user"]
    # Before the first of them there is the system's part, which has its end already.
    chosen = sorted(users[-back] for back in BACK if back < len(users))
    return [_common(prompt, render((messages or ())[:place])) for place in chosen]


def divided(segments: Segments, kinds: list[str], ends: Iterable[int]) -> tuple[Segments, list[str]]:
    """Divide the parts of a prompt at these ends too, as far as they are not close to another one."""
    bounds = [0]
    for segment in segments:
        bounds.append(bounds[-1] + len(segment))
    kept = list(bounds)
    for end in sorted(ends, reverse=True):
        if all(abs(end - other) >= MIN_TOKENS for other in kept):
            kept.append(end)
    whole = [token for segment in segments for token in segment]
    cuts = sorted(kept)
    of = [kinds[min(bisect_right(bounds, begin) - 1, len(kinds) - 1)] for begin in cuts[:-1]]
    return [whole[begin:end] for begin, end in pairwise(cuts)], of


def _rendering(
    generator: Any, tokenizer: Any, request: Any, args: Any
) -> Callable[[Sequence[dict[str, Any]]], Sequence[int]]:
    """Tokenize as `_tokenize` does, and without the opening of an answer."""
    options = {**generator.model_provider.cli_args.chat_template_args, **(args.chat_template_kwargs or {})}

    def render(messages: Sequence[dict[str, Any]]) -> Sequence[int]:
        tokens: Sequence[int] = tokenizer.apply_chat_template(
            list(messages), tools=request.tools, tokenize=True, add_generation_prompt=False, **options
        )
        return tokens

    return render


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
