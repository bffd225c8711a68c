"""Speculative decoding in a loop of our own: by the paper's rule, and with a draft length that may change each
round.

`text` is the last token of the prompt and what has been generated since. Each model has read a part of it:

1. A round begins with the draft model reading what it has not read yet, and proposing as many tokens as the policy
   wants; it has then read every proposal but the last.
2. The target model reads what it has not read yet, and the proposals that are to be verified, in one pass: there is
   one pass of the target model, and one wait for the device, in each round.
3. What is kept goes to `text` as it is given out. Whatever ends the round, even a consumer that leaves in the
   middle of it, both models are rolled back to the end of `text`.
4. Then the token after the kept ones goes to `text`; nobody has read it yet.

Where drafting does not pay, the target model goes on without a draft for some tokens, always one step ahead of
what is given out. The draft model reads them afterwards; how likely its drafts would have been kept tells whether
to draft again.
"""

import time
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache

from draftd.engine.generation.acceptance import RoundStep, Steps
from draftd.engine.generation.policy import DraftPolicy, Look
from draftd.engine.generation.sampling import Distribution, Greedy, probability

MAX_COMPARED = (
    32  # the latest tokens without a draft that are compared with what the draft model would have drafted
)

Rows = list[mx.array]


class CachedModel:
    """One of the two models with its cache, which has read the first `length` tokens of a text."""

    def __init__(self, model: Any, cache: list[Any]) -> None:
        self._model = model
        self._cache = cache
        self.length = 0

    def prefill(self, tokens: mx.array, step_size: int) -> None:
        """Read tokens that stand before the text."""
        for start in range(0, tokens.size, step_size):
            self._model(tokens[None, start : start + step_size], cache=self._cache)
            mx.eval([layer.state for layer in self._cache])
            mx.clear_cache()

    def read(self, tokens: mx.array) -> mx.array:
        """Read on, and return the logits of what may follow: a row for each token, not computed yet."""
        self.length += tokens.size
        logits: mx.array = self._model(tokens[None], cache=self._cache)[0]
        return logits

    def unread(self, text: list[int]) -> mx.array:
        """Return the tokens of the text that it has not read."""
        return mx.array(text[self.length :], mx.uint32)

    def roll_back(self, length: int) -> None:
        """Take back what it has read beyond the first `length` tokens of the text."""
        if self.length > length:
            trim_prompt_cache(self._cache, self.length - length)
            self.length = length


def generate(
    distribution: Distribution | Greedy,
    policy: DraftPolicy,
    prompt: mx.array,
    model: Any,
    draft_model: Any,
    stream: Any,
    *,
    max_tokens: int,
    prompt_cache: list[Any] | None = None,
    prefill_step_size: int = 512,
) -> Steps:
    """Yield what mlx_lm's `speculative_generate_step` yields, for the same arguments.

    Raises ValueError for a cache that cannot be trimmed.
    """
    layers = prompt_cache or make_prompt_cache(model) + make_prompt_cache(draft_model)
    if not can_trim_prompt_cache(layers):
        raise ValueError("speculative decoding requires a prompt cache that can be trimmed")
    target = CachedModel(model, layers[: len(model.layers)])
    draft = CachedModel(draft_model, layers[len(model.layers) :])
    prompt = prompt.astype(mx.uint32)
    text: list[int] = computed(prompt[-1:])
    with mx.stream(stream):
        for each in (draft, target):
            each.prefill(prompt[:-1], prefill_step_size)
        policy.begin_request()
        while (left := max_tokens - (len(text) - 1)) > 0:
            started, length = time.perf_counter(), len(text)
            if undrafted := policy.undrafted_tokens():
                yield from _undrafted(target, draft, text, distribution, policy, min(undrafted, left))
            else:
                yield from one_round(target, draft, text, distribution, policy, left)
            policy.observe_time(len(text) - length, time.perf_counter() - started)


def one_round(
    target: CachedModel,
    draft: CachedModel,
    text: list[int],
    distribution: Distribution | Greedy,
    policy: DraftPolicy,
    left: int,
) -> Steps:
    """One round, which gives out at most `left` tokens, and so proposes no more."""
    kept = 0
    look = policy.look()
    try:
        drafted, q, confidences = propose(draft, draft.unread(text), distribution, policy, left, look)
        verified = policy.tokens_to_verify(confidences) if look == "before" else len(drafted)
        drafted, q = drafted[:verified], q[:verified]
        logits = target.read(mx.concatenate([target.unread(text), *drafted]))
        learns = look == "after" and drafted
        likely = [probability(mx.concatenate(q), mx.concatenate(drafted))] if learns else []
        count, token, proposals = _verify(distribution, logits, q, drafted, likely)
        policy.observe_round(computed(likely[0]) if likely else confidences, verified, count)
        for proposal in proposals[:count]:
            text.append(proposal)
            kept += 1
            yield RoundStep((proposal, _logprobs(logits[kept - 1]), True), proposed=verified)
    finally:
        for each in (target, draft):
            each.roll_back(len(text))
    if kept < left:
        text.append(token)
        yield RoundStep((token, _logprobs(logits[kept]), False), proposed=verified)


def propose(
    draft: CachedModel,
    token: mx.array,
    distribution: Distribution | Greedy,
    policy: DraftPolicy,
    max_length: int,
    look: Look,
) -> tuple[Rows, Rows, list[float]]:
    """Return the drafted tokens, the logits that each was drawn from, and how likely each was by them.

    Without a look before the verification nothing is waited for: all is still being computed, and the list of how
    likely the tokens were is empty.
    """
    tokens: Rows = []
    rows: Rows = []
    confidences: list[float] = []
    while (burst := min(policy.tokens_to_draft(confidences), max_length - len(tokens))) > 0:
        for _ in range(burst):
            row = distribution.logits(draft.read(token)[-1:])
            token = distribution.draw(row)
            mx.async_eval(token)  # type: ignore[no-untyped-call]
            tokens.append(token)
            rows.append(row)
        if look != "before":
            break
        confidences += computed(probability(mx.concatenate(rows[-burst:]), mx.concatenate(tokens[-burst:])))
    return tokens, rows, confidences


def _verify(
    distribution: Distribution | Greedy, logits: mx.array, q: Rows, drafted: Rows, along: Rows
) -> tuple[int, int, list[int]]:
    """Return how many of the drafted tokens are kept, the token after them, and the drafted ones as numbers.

    What is in `along` is computed in the same wait.
    """
    p = distribution.logits(logits)
    if not drafted:
        return 0, computed(distribution.draw(p[-1:]))[0], []
    proposals = mx.concatenate(drafted)
    kept, token = distribution.verify(p, mx.concatenate(q), proposals)
    mx.eval(kept, token, proposals, logits, along)
    return computed(kept), computed(token), computed(proposals)


def _undrafted(
    target: CachedModel,
    draft: CachedModel,
    text: list[int],
    distribution: Distribution | Greedy,
    policy: DraftPolicy,
    tokens: int,
) -> Steps:
    """Generate some tokens without drafting; then let the policy know what drafting would have come to."""
    rows: Rows = []
    try:
        ahead = next_token(target, target.unread(text), distribution)
        for left in reversed(range(tokens)):
            token, row, logits = ahead
            if left:
                ahead = next_token(target, token, distribution)
            text += computed(token)
            rows = [*rows[1 - MAX_COMPARED :], row]
            yield RoundStep((text[-1], _logprobs(logits), False), proposed=0)
    finally:
        target.roll_back(len(text))
        unread = draft.unread(text)
        # Even if the consumer has left: what the draft model has not read is lost to the prompt cache.
        logits = draft.read(unread[:-1])[-len(rows) :]
        chances = distribution.would_keep(
            mx.concatenate(rows), distribution.logits(logits), unread[-len(rows) :]
        )
        policy.observe_undrafted(computed(chances))


def next_token(
    target: CachedModel, unread: mx.array, distribution: Distribution | Greedy
) -> tuple[mx.array, mx.array, mx.array]:
    """Return the token after the unread ones, and the logits that it is drawn from, shaped and unshaped.

    All are still being computed.
    """
    logits = target.read(unread)[-1:]
    row = distribution.logits(logits)
    token = distribution.draw(row)
    mx.async_eval(token)  # type: ignore[no-untyped-call]
    return token, row, logits[0]


def _logprobs(row: mx.array) -> mx.array:
    """Only rows that are given out are normalised, and only when somebody looks: exponentials are dear on a CPU."""
    return row - mx.logsumexp(row, axis=-1, keepdims=True)


def computed(array: mx.array) -> Any:
    """Wait for an array, and return it as Python numbers."""
    return array.tolist()
