"""Which rule keeps the draft tokens of a request: the paper's, or mlx_lm's own.

The paper's rule needs the distributions that tokens are drawn from. They are known if temperature, top_p, min_p
and top_k are all that shapes them: then the sampler has a `distribution`, see `sampling`. Greedy decoding
draws nothing: there both rules are one. Penalties and a logit bias (`logits_processors`), XTC and a quantized
cache are left to mlx_lm.
"""

from collections.abc import Mapping
from typing import Any

from draftd.protocol import PLAIN_RULE

ATTRIBUTE = "distribution"

_HANDLED = {"max_tokens", "prompt_cache", "prefill_step_size"}
_KNOWN = {"num_draft_tokens", "policy"}
_IGNORED = {"sampler", "kv_group_size", "quantized_kv_start"}  # known by its distribution; only with kv_bits


def distribution_of(arguments: Mapping[str, Any]) -> Any:
    """Return what tokens are drawn from, for the keyword arguments of mlx_lm's `speculative_generate_step`.

    None if something else shapes it, or if nothing is to be drafted: such a request is left to mlx_lm.
    """
    used = {name for name, value in arguments.items() if value}
    drafts = (arguments.get("num_draft_tokens") or 0) > 0 and (arguments.get("max_tokens") or 0) > 0
    if not drafts or not used <= _HANDLED | _KNOWN | _IGNORED:
        return None
    return getattr(arguments.get("sampler"), ATTRIBUTE, None)


def rule_of(arguments: Mapping[str, Any]) -> str:
    """Return the rule for these arguments."""
    distribution = distribution_of(arguments)
    return PLAIN_RULE if distribution is None else str(distribution.rule)


def for_our_loop(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that our own loop takes as they are."""
    return {name: value for name, value in arguments.items() if name in _HANDLED}
