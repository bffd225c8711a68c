"""Pairs of models that share a tokenizer, with the memory that they take: computed, not measured.

Four-bit weights take 4.5 bits in mlx (each group of 64 has a scale and a bias of 16 bits). A token of context
takes, in each layer and each key-value head, one key and one value of `head` numbers of two bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

BITS = 4.5
CONTEXT = 8192  # tokens
GPU_SHARE = 2 / 3  # of the memory: what macOS gives the GPU, on large Macs three quarters


@dataclass(frozen=True)
class Model:
    """`billions` of parameters, and the shape of the cache."""

    name: str
    billions: float
    layers: int
    heads: int
    head: int

    @property
    def weights(self) -> float:
        """Bytes."""
        return self.billions * 1e9 * BITS / 8

    @property
    def context(self) -> float:
        """Bytes that a context of CONTEXT tokens takes."""
        return CONTEXT * self.layers * self.heads * self.head * 2 * 2


QWEN25_3B = Model("Josiefied-Qwen2.5-3B-Instruct-abliterated-v1-4-bit", 3.09, 36, 2, 128)
QWEN25_05B = Model("Josiefied-Qwen2.5-0.5B-Instruct-abliterated-v1-4bit", 0.494, 24, 2, 64)
QWEN3_06B = Model("Qwen3-0.6B-4bit", 0.596, 28, 8, 128)
QWEN3_8B = Model("Qwen3-8B-4bit", 8.19, 36, 8, 128)
QWEN3_14B = Model("Qwen3-14B-4bit", 14.77, 40, 8, 128)
QWEN3_32B = Model("Qwen3-32B-4bit", 32.76, 64, 8, 128)
LLAMA32_1B = Model("Llama-3.2-1B-Instruct-4bit", 1.236, 16, 8, 64)
LLAMA31_8B = Model("Meta-Llama-3.1-8B-Instruct-4bit", 8.03, 32, 8, 128)
LLAMA33_70B = Model("Llama-3.3-70B-Instruct-4bit", 70.55, 80, 8, 128)

# GB of memory -> target and draft models
PAIRS: tuple[tuple[int, Model, Model], ...] = (
    (8, QWEN25_3B, QWEN25_05B),
    (16, QWEN3_8B, QWEN3_06B),
    (16, LLAMA31_8B, LLAMA32_1B),
    (32, QWEN3_14B, QWEN3_06B),
    (64, QWEN3_32B, QWEN3_06B),
    (64, LLAMA33_70B, LLAMA32_1B),
)


def download(target: Model, draft: Model) -> float:
    """GB."""
    return (target.weights + draft.weights) / 1e9


def memory(target: Model, draft: Model) -> float:
    """GB: the weights, and a context of CONTEXT tokens in both models."""
    return download(target, draft) + (target.context + draft.context) / 1e9


def pairs_table() -> str:
    """The table of the README."""
    rows = "".join(
        f"| {mac} GB | `{target.name}` | `{draft.name}` | {download(target, draft):.1f} GB "
        f"| {memory(target, draft):.1f} GB |\n"
        for mac, target, draft in PAIRS
    )
    return "| Mac | `model` | `draft_model` | to download | in memory |\n|---|---|---|---|---|\n" + rows
