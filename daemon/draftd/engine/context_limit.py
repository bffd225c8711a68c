"""Refuses a prompt that is longer than the model's context, before anything of it is read.

mlx_lm reads on beyond it, for minutes, and what it then writes is noise. The length is known once the prompt is
tokenized, with the template and the tools, so `_tokenize` of mlx_lm's ResponseGenerator is wrapped: every request
goes through it in the generating thread, when its turn has come. Of what goes wrong there the request is the cause.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from draftd.engine.answers.presence import LEFT_ATTRIBUTE, LeftError
from draftd.engine.model_facts import context_length
from draftd.engine.records import describe
from draftd.engine.refusals import RefusedRequestError
from draftd.protocol import CONTEXT_LENGTH_EXCEEDED


def tokenizing(tokenize: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `_tokenize`: raise RefusedRequestError, or LeftError if the client left while the request waited."""

    @functools.wraps(tokenize)
    def _tokenize(self: Any, tokenizer: Any, request: Any, args: Any) -> Any:
        if getattr(args, LEFT_ATTRIBUTE, False):
            raise LeftError
        tokenized = _read(tokenize, self, tokenizer, request, args)
        context = context_length(getattr(self.model_provider.model, "args", None))
        args.max_tokens = tokens_left(len(tokenized[0]), args.max_tokens, context)
        return tokenized

    return _tokenize


def count_prompt(generator: Any, request: Any, args: Any) -> int:
    """Return the tokens of a prompt, be they more than the context has. `generator` is mlx_lm's ResponseGenerator.

    Raise RefusedRequestError. This runs in the thread of the request: nothing waits for the generating one.
    """
    tokenizer = generator.model_provider.tokenizer
    if tokenizer is None:
        raise RefusedRequestError("the model is not loaded yet")
    return len(_read(inspect.unwrap(type(generator)._tokenize), generator, tokenizer, request, args)[0])


def _read(tokenize: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return tokenize(*arguments)
    except Exception as error:
        raise RefusedRequestError(f"the prompt could not be read: {describe(error)}") from error


def tokens_left(prompt_tokens: int, max_tokens: int, context: int | None) -> int:
    """Return how many tokens an answer may have. `context` is in tokens, None if no limit is known.

    Raise RefusedRequestError if there is no room for one.
    """
    if not prompt_tokens:
        raise RefusedRequestError("the prompt is empty")
    if context is None:
        return max_tokens
    if prompt_tokens >= context:
        raise RefusedRequestError(
            f"the prompt has {prompt_tokens} tokens, and this model's context is {context} tokens, answer included",
            code=CONTEXT_LENGTH_EXCEEDED,
        )
    return min(max_tokens, context - prompt_tokens)
