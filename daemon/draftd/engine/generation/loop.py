"""Speculative decoding in a loop of our own: by the paper's rule, and with drafts of changing length.

`text` is the last token of the prompt and what was generated since. Each model has read a part of it:

1. A round begins with the draft model reading what it has not read, and proposing as many tokens as the policy
   wants; every proposal but the last it has read then.
2. The target model reads what it has not read and the proposals to be verified, in one step: there is one pass
   of the target model, and one wait for the device, for each round.
3. What is kept goes to `text` as it is given out. Whatever ends the round, also a consumer that leaves in the
   middle of it, both models forget what they have read beyond `text`.
4. Then the token after the kept ones goes to `text`; nobody has read it yet.

Where drafting does not pay, the target model goes on alone for some tokens, always one step ahead of what is
given out. The draft model reads them afterwards, and what it would have proposed tells whether to draft again.
"""

import functools
import inspect
import time
from collections.abc import Generator
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache

from draftd.engine.generation.acceptance import RoundStep, Step, Steps
from draftd.engine.generation.policy import DraftPolicy, FixedLength, Look
from draftd.engine.generation.reader import CachedModel
from draftd.engine.generation.rules import distribution_of, for_our_loop
from draftd.engine.generation.sampling import Distribution, Greedy, probability
from draftd.protocol import PLAIN_RULE

LOOK_BACK = 32  # tokens generated alone that are compared with what the draft model would have proposed


def our_steps(
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
) -> Generator[Step, None, None]:
    """Yield what mlx_lm's `speculative_generate_step` yields, for the same arguments.

    Raises ValueError for a cache that cannot be trimmed.
    """
    layers = prompt_cache or make_prompt_cache(model) + make_prompt_cache(draft_model)
    if not can_trim_prompt_cache(layers):
        raise ValueError("speculative decoding requires a prompt cache that can be trimmed")
    target = CachedModel(model, layers[: len(model.layers)])
    draft = CachedModel(draft_model, layers[len(model.layers) :])
    prompt = prompt.astype(mx.uint32)
    text: list[int] = plain(prompt[-1:])
    with mx.stream(stream):
        for reader in (draft, target):
            reader.prefill(prompt[:-1], prefill_step_size)
        policy.begin_request()
        while (left := max_tokens - (len(text) - 1)) > 0:
            started, length = time.perf_counter(), len(text)
            if alone := policy.undrafted_tokens():
                yield from _alone(target, draft, text, distribution, policy, min(alone, left))
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
) -> Generator[Step, None, None]:
    """One round that gives out at most `left` tokens, and so proposes no more."""
    kept = 0
    look = policy.look()
    try:
        drafted, q, confidences = propose(draft, draft.unread(text), distribution, policy, left, look)
        verified = policy.tokens_to_verify(confidences) if look == "before" else len(drafted)
        drafted, q = drafted[:verified], q[:verified]
        logits = target.read(mx.concatenate([target.unread(text), *drafted]))
        learns = look == "after" and drafted
        likely = [probability(mx.concatenate(q), mx.concatenate(drafted))] if learns else []
        count, token, proposals = judge(distribution, logits, q, drafted, likely)
        policy.observe_round(plain(likely[0]) if likely else confidences, verified, count)
        for proposal in proposals[:count]:
            text.append(proposal)
            kept += 1
            yield RoundStep((proposal, _logprobs(logits[kept - 1]), True), proposed=verified)
    finally:
        for reader in (target, draft):
            reader.roll_back(len(text))
    if kept < left:
        text.append(token)
        yield RoundStep((token, _logprobs(logits[kept]), False), proposed=verified)


Rows = list[mx.array]


def propose(
    draft: CachedModel,
    token: mx.array,
    distribution: Distribution | Greedy,
    policy: DraftPolicy,
    most: int,
    look: Look,
) -> tuple[Rows, Rows, list[float]]:
    """Return the drafted tokens, the logits that each was drawn from, and how likely each was by them.

    Without a look before the verification nothing is waited for: all is still being computed, and how likely the
    tokens were is not told.
    """
    tokens: Rows = []
    rows: Rows = []
    confidences: list[float] = []
    while (burst := min(policy.tokens_to_draft(confidences), most - len(tokens))) > 0:
        for _ in range(burst):
            row = distribution.logits(draft.read(token)[-1:])
            token = distribution.draw(row)
            mx.async_eval(token)  # type: ignore[no-untyped-call]
            tokens.append(token)
            rows.append(row)
        if look != "before":
            break
        confidences += plain(probability(mx.concatenate(rows[-burst:]), mx.concatenate(tokens[-burst:])))
    return tokens, rows, confidences


def judge(
    distribution: Distribution | Greedy, logits: mx.array, q: Rows, drafted: Rows, along: Rows
) -> tuple[int, int, list[int]]:
    """Return how many of the drafted tokens are kept, the token after them, and the drafted ones as numbers.

    What is to be computed `along` is waited for as well.
    """
    p = distribution.logits(logits)
    if not drafted:
        return 0, plain(distribution.draw(p[-1:]))[0], []
    proposals = mx.concatenate(drafted)
    kept, token = distribution.verify(p, mx.concatenate(q), proposals)
    mx.eval(kept, token, proposals, logits, along)
    return plain(kept), plain(token), plain(proposals)


def _alone(
    target: CachedModel,
    draft: CachedModel,
    text: list[int],
    distribution: Distribution | Greedy,
    policy: DraftPolicy,
    tokens: int,
) -> Generator[Step, None, None]:
    """Generate some tokens without drafting; then let the policy know what drafting would have come to."""
    rows: Rows = []
    try:
        ahead = next_token(target, target.unread(text), distribution)
        for left in reversed(range(tokens)):
            token, row, logits = ahead
            if left:
                ahead = next_token(target, token, distribution)
            text += plain(token)
            rows = [*rows[1 - LOOK_BACK :], row]
            yield RoundStep((text[-1], _logprobs(logits), False), proposed=0)
    finally:
        target.roll_back(len(text))
        unread = draft.unread(text)
        # Also for a consumer that leaves: what the draft model has not read is lost to the prompt cache.
        logits = draft.read(unread[:-1])[-len(rows) :]
        shares = distribution.would_keep(
            mx.concatenate(rows), distribution.logits(logits), unread[-len(rows) :]
        )
        policy.observe_undrafted(plain(shares))


def next_token(
    target: CachedModel, unread: mx.array, distribution: Distribution | Greedy
) -> tuple[mx.array, mx.array, mx.array]:
    """Return the token after the unread ones and the logits that it is drawn from, shaped and unshaped.

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


def plain(numbers: mx.array) -> Any:
    """Return an array as Python numbers, once it has been computed."""
    return numbers.tolist()


def by_rule(steps: Steps) -> Steps:
    """Wrap mlx_lm's `speculative_generate_step`: our loop where a `policy` is given or the paper's rule applies."""
    signature = inspect.signature(steps)
    default_stream = signature.parameters["stream"].default

    @functools.wraps(steps)
    def speculative_generate_step(
        prompt: Any,
        model: Any,
        draft_model: Any,
        stream: Any = default_stream,
        policy: DraftPolicy | None = None,
        **kwargs: Any,
    ) -> Generator[Step, None, None]:
        distribution = distribution_of(kwargs)
        if distribution is None or (policy is None and distribution.rule == PLAIN_RULE):
            return steps(prompt, model, draft_model, stream, **kwargs)
        policy = policy or FixedLength(kwargs["num_draft_tokens"])
        return our_steps(distribution, policy, prompt, model, draft_model, stream, **for_our_loop(kwargs))

    taken = [*signature.parameters.values(), inspect.Parameter("policy", inspect.Parameter.KEYWORD_ONLY)]
    setattr(speculative_generate_step, "__signature__", signature.replace(parameters=taken))  # noqa: B010
    return speculative_generate_step
