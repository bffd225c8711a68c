"""Refuses a prompt that is longer than the model's context, before anything of it is read.

mlx_lm reads on beyond it, for minutes, and what it then writes is noise. The length is known once the prompt is
tokenized, with the template and the tools, so `_tokenize` of mlx_lm's ResponseGenerator is wrapped: every request
goes through it in the generating thread, when its turn has come. Of what goes wrong there the request is the cause.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from draftd.engine.answers.presence import LEFT_ATTRIBUTE, LeftError
from draftd.engine.model_facts import context_length
from draftd.engine.records import describe
from draftd.engine.refusals import RefusedRequestError
from draftd.protocol import CONTEXT_LENGTH_EXCEEDED

# Characters of a prompt for each token of the context. Beyond it the prompt is tokenized slice by slice, and
# refused as soon as it is known to be too long: 31 MB as a whole take a tokenizer minutes, and 5 GB that stay.
MAX_CHARACTERS = 8
MAX_COUNTED = 4  # times the context: a prompt whose tokens are asked for is counted up to there
MAX_SPLIT = 16  # tokens more that a cut between two slices may make


class Bounded:
    """A tokenizer that refuses a text of more than `limit` tokens, before it tokenizes the whole."""

    def __init__(self, tokenizer: Any, limit: int, context: int) -> None:
        self._tokenizer = tokenizer
        self._limit = limit
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def apply_chat_template(self, *arguments: Any, **options: Any) -> Any:
        """Raise RefusedRequestError; otherwise it is the tokenizer's own."""
        self._check(self._tokenizer.apply_chat_template(*arguments, **options | {"tokenize": False}))
        return self._tokenizer.apply_chat_template(*arguments, **options)

    def encode(self, text: str, **options: Any) -> Any:
        """Raise RefusedRequestError; otherwise it is the tokenizer's own."""
        self._check(text)
        return self._tokenizer.encode(text, **options)

    def _check(self, text: str) -> None:
        slice_length, tokens, allowed = 4 * self._context, 0, self._limit
        for start in range(0, len(text), slice_length):
            part = text[start : start + slice_length]
            tokens += len(self._tokenizer.encode(part, add_special_tokens=False))
            if tokens > allowed:
                raise too_long(f"more than {tokens}", self._context)
            allowed += MAX_SPLIT


def tokenizing(tokenize: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `_tokenize`: raise RefusedRequestError, or LeftError if the client left while the request waited."""

    @functools.wraps(tokenize)
    def _tokenize(self: Any, tokenizer: Any, request: Any, args: Any) -> Any:
        if getattr(args, LEFT_ATTRIBUTE, False):
            raise LeftError
        context = context_length(getattr(self.model_provider.model, "args", None))
        with _at_fault(request):
            tokenized = tokenize(self, _bounded(tokenizer, request, context), request, args)
            args.max_tokens = tokens_left(len(tokenized[0]), args.max_tokens, context)
        return tokenized

    return _tokenize


def count_prompt(generator: Any, request: Any, args: Any) -> int:
    """Return the tokens of a prompt, be they more than the context has. `generator` is mlx_lm's ResponseGenerator.

    Raise RefusedRequestError, also for more than MAX_COUNTED contexts have. This runs in the thread of the request:
    nothing waits for the generating one.
    """
    tokenizer = generator.model_provider.tokenizer
    if tokenizer is None:
        raise RefusedRequestError("the model is not loaded yet")
    context = context_length(getattr(generator.model_provider.model, "args", None))
    bounded = _bounded(tokenizer, request, context, MAX_COUNTED)
    with _at_fault(request):
        return len(inspect.unwrap(type(generator)._tokenize)(generator, bounded, request, args)[0])


def _bounded(tokenizer: Any, request: Any, context: int | None, times: int = 1) -> Any:
    """Return a tokenizer for the request that refuses a prompt longer than `times` the context."""
    if context is None or _characters(request) <= MAX_CHARACTERS * context:
        return tokenizer
    return Bounded(tokenizer, times * context, context)


@contextmanager
def _at_fault(request: Any) -> Iterator[None]:
    """Whatever is raised while a prompt is read is the request's fault, and names the field that it comes from."""
    field = "messages" if request.request_type == "chat" else "prompt"
    try:
        yield
    except RefusedRequestError as error:
        error.param = error.param or field
        raise
    except Exception as error:
        text = f"the prompt could not be read: {describe(error)}"
        raise RefusedRequestError(text, param=field) from error


def tokens_left(prompt_tokens: int, max_tokens: int, context: int | None) -> int:
    """Return how many tokens an answer may have. `context` is in tokens, None if no limit is known.

    Raise RefusedRequestError if there is no room for one.
    """
    if not prompt_tokens:
        raise RefusedRequestError("the prompt is empty")
    if context is None:
        return max_tokens
    if prompt_tokens >= context:
        raise too_long(str(prompt_tokens), context)
    return min(max_tokens, context - prompt_tokens)


def too_long(prompt_tokens: str, context: int) -> RefusedRequestError:
    """Return the refusal of a prompt; `prompt_tokens` may say "more than" before the number."""
    return RefusedRequestError(
        f"the prompt has {prompt_tokens} tokens, and this model's context is {context} tokens, answer included",
        code=CONTEXT_LENGTH_EXCEEDED,
    )


def _characters(request: Any) -> int:
    """Return the length of a request's texts and tools; what the template adds to them is short."""
    if request.request_type != "chat":
        return len(request.prompt)
    said = (value for message in request.messages for value in message.values())  # calls and thoughts too
    return sum(len(str(value)) for value in said) + len(repr(request.tools or ""))
