"""How often bfloat16 and quantized models write something else with drafts.

A pass over several tokens rounds differently from a pass over one. Where two tokens are nearly as likely, that may
decide between them, and from there on the texts differ. Of some architectures, with random weights,
`python -m tests.engine.architectures.ties [NAME ...]` counts the answers that differ, and the first differences
that are no ties: those would be faults.
"""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx import nn

from draftd.engine.generation.caches.sequence import ModelCaches
from tests.engine.architectures.drafting import drafted_text, plain_text, prompt_of, scripted
from tests.engine.architectures.models import make
from tests.engine.architectures.proof import verdict

# No mixtures of experts: on a CPU mlx has no bfloat16 for them.
ARCHITECTURES = ("qwen2", "llama", "gemma3_text", "cohere2", "lfm2", "mamba2")
ANSWERS = 16
TOKENS = 100
RIGHT = 0.7  # of the drafts


def _bfloat16(model: Any) -> None:
    model.set_dtype(mx.bfloat16)


def _quantized(model: Any) -> None:
    nn.quantize(model, group_size=32, bits=4, class_predicate=_is_wide)
    model.set_dtype(mx.bfloat16)


def _is_wide(_: str, module: Any) -> bool:
    return hasattr(module, "to_quantized") and module.weight.shape[-1] % 32 == 0


TYPES: dict[str, Callable[[Any], None]] = {
    "float32": lambda _: None,
    "bfloat16": _bfloat16,
    "4 bits": _quantized,
}


def count(name: str, shrink: Callable[[Any], None]) -> Counter[str]:
    """Return how many answers were the same ("yes"), differed first at a tie ("tie"), or elsewhere ("NO")."""
    model = make(name)
    shrink(model)
    mx.eval(model.parameters())
    found: Counter[str] = Counter()
    for seed in range(ANSWERS):
        prompt = prompt_of(6 + 8 * seed, seed)
        truth = plain_text(model, prompt, TOKENS)
        propose = scripted(truth, lambda _: RIGHT, seed)
        text = drafted_text(model, ModelCaches(model).make(), prompt, TOKENS, propose, seed).text
        found[verdict(model, prompt, truth, text).split()[0]] += 1
    return found


def main(names: list[str]) -> int:
    """Print a line for each architecture and type; return how many differences were no ties."""
    faults = 0
    for name in names or ARCHITECTURES:
        for kind, shrink in TYPES.items():
            found = count(name, shrink)
            faults += found["NO"]
            print(
                f"{name}, {kind}: {found['yes']} of {ANSWERS} the same, {found['tie']} ties, {found['NO']} else"
            )
    return faults


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
