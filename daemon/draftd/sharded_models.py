"""Whether a model can be split over a number of ranks, by its config alone: the daemon asks before a start, and
each rank before it loads. Pure, and standard library only.

mlx_lm drops the remainder when it divides heads: of three heads on two ranks two are left, and the text is garbage
without any error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TENSOR, PIPELINE = "tensor", "pipeline"
INDEX = "model.safetensors.index.json"  # tells a rank of a pipeline which files it needs

# What each rank has a part of: heads, and the widths between two exchanges. Configs use different names for the
# same.
_HEADS = ("num_attention_heads", "n_heads", "linear_num_key_heads", "linear_num_value_heads")
_KV_HEADS = ("num_key_value_heads", "num_attention_groups")
_WIDTHS = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size")
# Model types whose key and value heads mlx_lm repeats where there are fewer of them than ranks.
_REPEATING = frozenset({"qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text"})


def misfits(config: Mapping[str, Any], ranks: int, mode: str) -> list[str]:
    """Say what in a model's config.json cannot be divided by the ranks; nothing for a model that can be split."""
    text = config.get("text_config")
    own = {**config, **text} if isinstance(text, dict) else dict(config)
    return list(_pipeline(own, ranks) if mode == PIPELINE else _tensor(own, ranks))


def _pipeline(own: Mapping[str, Any], ranks: int) -> Iterator[str]:
    layers = own.get("num_hidden_layers")
    if type(layers) is int and layers < ranks:
        yield f"{_count(layers, 'layer')} cannot be spread over {ranks} ranks"


def _tensor(own: Mapping[str, Any], ranks: int) -> Iterator[str]:
    for name in _HEADS:
        if (heads := _number(own, name)) and heads % ranks:
            yield _uneven(name, heads, ranks)
    if "kv_lora_rank" not in own:  # such models keep something else instead of keys and values, at all ranks
        yield from _kv_heads(own, ranks)
    group = _group_size(own)
    heads, head_size = _number(own, "num_attention_heads"), _number(own, "head_dim")
    if heads and not head_size and (hidden := _number(own, "hidden_size")):
        head_size = hidden // heads
    widths = {name: _number(own, name) for name in _WIDTHS}
    if heads and head_size and not heads % ranks:
        widths[f"num_attention_heads x {head_size}"] = heads * head_size
    for name, width in widths.items():
        if width and width % ranks:
            yield _uneven(name, width, ranks)
        elif width and width % (ranks * group):
            yield f"{name} ({width}) is quantized in groups of {group}, which {ranks} ranks cannot divide"


def _kv_heads(own: Mapping[str, Any], ranks: int) -> Iterator[str]:
    repeats = own.get("model_type") in _REPEATING
    for name in _KV_HEADS:
        heads = _number(own, name)
        if heads and heads % ranks and not (repeats and ranks % heads == 0):
            yield _uneven(name, heads, ranks)


def _uneven(name: str, value: int, ranks: int) -> str:
    return f"{name} is {value}, which cannot be divided by {ranks}"


def _group_size(own: Mapping[str, Any]) -> int:
    quantization = own.get("quantization")
    return (_number(quantization, "group_size") if isinstance(quantization, dict) else 0) or 1


def _number(own: Mapping[str, Any], name: str) -> int:
    value = own.get(name)
    return value if type(value) is int and value > 0 else 0


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
