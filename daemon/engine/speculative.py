"""Speculative decoding by the paper's rule, in the place of mlx_lm's loop where that keeps more draft tokens.

`text` is the last token of the prompt and what was generated since. Each model has read a part of it:

1. A round begins with the draft model reading what it has not read, and proposing; every proposal but the
   last it has read then.
2. The target model reads what it has not read and the whole proposal, in one step: there is one pass of the
   target model, and one wait for the device, for each round.
3. What is kept goes to `text` as it is given out. Whatever ends the round, also a consumer that leaves in the
   middle of it, both models forget what they have read beyond `text`.
4. Then the token after the kept ones goes to `text`; nobody has read it yet.
"""

import functools
import inspect
from collections.abc import Generator, Iterator
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache

from daemon.engine.acceptance import Step, Steps
from daemon.engine.rules import PLAIN, for_paper, rule_of
from daemon.engine.sampling import Distribution, verify


class Reader:
    """A model with its key-value cache, and how many tokens of `text` it has read."""

    def __init__(self, model: Any, cache: list[Any]) -> None:
        self._model = model
        self._cache = cache
        self.length = 0

    def prefill(self, tokens: mx.array, step_size: int) -> None:
        """Read tokens before `text`."""
        for start in range(0, tokens.size, step_size):
            self._model(tokens[None, start : start + step_size], cache=self._cache)
            mx.eval([layer.state for layer in self._cache])
            mx.clear_cache()

    def read(self, tokens: mx.array) -> mx.array:
        """Read on; return the logits of what may follow, one row for each token."""
        self.length += tokens.size
        logits: mx.array = self._model(tokens[None], cache=self._cache)[0]
        return logits

    def forget(self, length: int) -> None:
        """Forget what was read beyond `length` tokens of `text`."""
        if self.length > length:
            trim_prompt_cache(self._cache, self.length - length)
            self.length = length


def paper_steps(
    distribution: Distribution,
    prompt: mx.array,
    model: Any,
    draft_model: Any,
    stream: Any,
    *,
    num_draft_tokens: int,
    max_tokens: int,
    prompt_cache: list[Any] | None = None,
    prefill_step_size: int = 512,
) -> Generator[Step, None, None]:
    """Yield what mlx_lm's `speculative_generate_step` yields, for the same arguments.

    Raises ValueError for a cache that cannot be trimmed.
    """
    layers = prompt_cache or make_prompt_cache(model) + make_prompt_cache(draft_model)
    if not can_trim_prompt_cache(layers):
        raise ValueError("speculative decoding requires a prompt cache that can be trimmed")
    target = Reader(model, layers[: len(model.layers)])
    draft = Reader(draft_model, layers[len(model.layers) :])
    prompt = prompt.astype(mx.uint32)
    text: list[int] = _plain(prompt[-1:])
    with mx.stream(stream):
        for reader in (draft, target):
            reader.prefill(prompt[:-1], prefill_step_size)
        while (left := max_tokens - (len(text) - 1)) > 0:
            length = min(num_draft_tokens, left)
            yield from _round(target, draft, text, distribution, length, left)


def _round(
    target: Reader, draft: Reader, text: list[int], distribution: Distribution, length: int, left: int
) -> Iterator[Step]:
    """One round that proposes `length` tokens, and gives out at most `left`."""
    kept = 0
    try:
        drafted, q = _propose(draft, text, distribution, length)
        logits = target.read(mx.concatenate([_unread(target, text), drafted]))
        verdict = verify(distribution.logits(logits), q, drafted)
        mx.eval(*verdict, drafted, logits)
        count, token, proposals = (_plain(numbers) for numbers in (*verdict, drafted))
        for proposal in proposals[:count]:
            text.append(proposal)
            kept += 1
            yield proposal, _logprobs(logits[kept - 1]), True
    finally:
        for reader in (target, draft):
            reader.forget(len(text))
    if kept < left:
        text.append(token)
        yield token, _logprobs(logits[kept]), False


def _propose(
    draft: Reader, text: list[int], distribution: Distribution, length: int
) -> tuple[mx.array, mx.array]:
    """Return the proposed tokens, and the logits that each was drawn from."""
    tokens, rows = [], []
    token = _unread(draft, text)
    for _ in range(length):
        row = distribution.logits(draft.read(token)[-1:])
        token = mx.random.categorical(row)
        mx.async_eval(token)  # type: ignore[no-untyped-call]
        tokens.append(token)
        rows.append(row)
    return mx.concatenate(tokens), mx.concatenate(rows)


def _logprobs(row: mx.array) -> mx.array:
    """Only rows that are given out are normalised, and only when somebody looks: exponentials are dear on a CPU."""
    return row - mx.logsumexp(row, axis=-1, keepdims=True)


def _unread(reader: Reader, text: list[int]) -> mx.array:
    return mx.array(text[reader.length :], mx.uint32)


def _plain(numbers: mx.array) -> Any:
    return numbers.tolist()


def by_rule(steps: Steps) -> Steps:
    """Wrap mlx_lm's `speculative_generate_step`: the paper's rule where it applies, else what was there."""
    default_stream = inspect.signature(steps).parameters["stream"].default

    @functools.wraps(steps)
    def speculative_generate_step(
        prompt: Any, model: Any, draft_model: Any, stream: Any = default_stream, **kwargs: Any
    ) -> Generator[Step, None, None]:
        if rule_of(kwargs) == PLAIN:
            return steps(prompt, model, draft_model, stream, **kwargs)
        distribution, handled = for_paper(kwargs)
        return paper_steps(distribution, prompt, model, draft_model, stream, **handled)

    return speculative_generate_step
