"""Which rule keeps the draft tokens of a request: the paper's, or mlx_lm's own.

The paper's rule needs the distributions that tokens are drawn from. They are known if temperature, top_p, min_p
and top_k are all that shapes them: then the sampler has a `distribution`, see `sampling`. Greedy decoding
draws nothing. Penalties and a logit bias (`logits_processors`), XTC and a quantized cache are left to mlx_lm.
"""

from collections.abc import Mapping
from typing import Any

PLAIN = "plain"
PAPER = "paper"
ATTRIBUTE = "distribution"

_HANDLED = {"num_draft_tokens", "max_tokens", "prompt_cache", "prefill_step_size"}
_IGNORED = {"sampler", "kv_group_size", "quantized_kv_start"}  # known by its distribution; only with kv_bits


def rule_of(arguments: Mapping[str, Any]) -> str:
    """Return the rule for the keyword arguments of mlx_lm's `speculative_generate_step`."""
    used = {name for name, value in arguments.items() if value or name in _HANDLED}
    drafts = (arguments.get("num_draft_tokens") or 0) > 0 and (arguments.get("max_tokens") or 0) > 0
    known = hasattr(arguments.get("sampler"), ATTRIBUTE)
    return PAPER if drafts and known and used <= _HANDLED | _IGNORED else PLAIN


def for_paper(arguments: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the distribution, and the arguments that our own loop takes, where the paper's rule applies."""
    handled = {name: value for name, value in arguments.items() if name in _HANDLED}
    return getattr(arguments["sampler"], ATTRIBUTE), handled
