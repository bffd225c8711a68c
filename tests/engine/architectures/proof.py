"""What is proved of each architecture, and how it is written down.

`python -m tests.engine.architectures` proves all with 300 tokens and writes the table, in about ten minutes.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from draftd.engine.generation.caches.layers import is_state, leaves
from draftd.engine.generation.caches.sequence import ModelCaches
from tests.engine.architectures.drafting import PREFILL, drafted_text, plain_text, prompt_of, scripted
from tests.engine.architectures.models import LEFT_OUT, architectures, make
from tests.ties import is_tie

TABLE = Path(__file__).with_name("table.md")
TOKENS = 300
PROMPTS = (6, 60)  # shorter and longer than a window
RATES = (1.0, 0.5, 0.0)  # how much of the drafts is right

HOW = {
    "KVCache": "offset",
    "RotatingKVCache": "window",
    "ChunkedKVCache": "chunks",
    "ArraysCache": "reads again",
    "LayerCache": "whole passes",
}


@dataclass(frozen=True)
class Row:
    """What the table says of an architecture."""

    architecture: str
    caches: str
    rollback: str
    exact: str
    passes: str = ""

    def line(self) -> str:
        return f"| {self.architecture} | {self.caches} | {self.rollback} | {self.exact} | {self.passes} |"


def described(model: Any, caches: ModelCaches) -> tuple[str, str]:
    """Return the kinds of a model's caches, and how they are taken back."""
    layers = make_prompt_cache(model)
    kinds = ", ".join(sorted(set(map(_kind, layers))))
    if caches.refusal:
        return kinds, "not drafted"
    how = {
        "whole passes" if caches.rereads and is_state(leaf) else HOW[type(leaf).__name__]
        for leaf in leaves(layers)
    }
    return kinds, ", ".join(sorted(how))


def _kind(layer: Any) -> str:
    parts = getattr(layer, "caches", None)
    return type(layer).__name__ if parts is None else f"CacheList({', '.join(map(_kind, parts))})"


def proved(name: str, tokens: int = TOKENS) -> Row:
    """Draft with a model in all ways, and return what came of it."""
    model = make(name)
    caches = ModelCaches(model)
    kinds, how = described(model, caches)
    if caches.refusal:
        return Row(name, kinds, how, f"no: {caches.refusal}")
    verdicts, passes = [], []
    for length in PROMPTS:
        prompt = prompt_of(length, seed=length)
        truth = plain_text(model, prompt, tokens)
        for rate in RATES:
            propose = scripted(truth, functools.partial(_always, rate), seed=length)
            drafted = drafted_text(model, caches.make(), prompt, tokens, propose, seed=length)
            verdicts.append(verdict(model, prompt, truth, drafted.text))
            passes.append(drafted.passes)
    by_rate = " / ".join(str(sum(passes[i :: len(RATES)])) for i in range(len(RATES)))
    ties = [v for v in verdicts if v != "yes"]
    return Row(name, kinds, how, "; ".join(ties) or "yes", by_rate)


def _always(rate: float, _: int) -> float:
    return rate


def verdict(model: Any, prompt: list[int], truth: list[int], text: list[int]) -> str:
    """Say whether two texts are the same, or differ first where two tokens are equally likely."""
    if text == truth:
        return "yes"
    at = next(i for i, (a, b) in enumerate(zip(truth, text, strict=True)) if a != b)
    gap, noise = _gap_and_noise(model, prompt + truth[:at], truth[at], text[at])
    return f"{'tie' if is_tie(gap, noise) else 'NO'} at {at} (gap {gap:.1e}, noise {noise:.1e})"


def _gap_and_noise(model: Any, read: list[int], one: int, other: int) -> tuple[float, float]:
    """Return how far apart two tokens are, and what the shape of a pass alone changes, by mlx_lm's own caches."""
    rows = []
    for width in (PREFILL, 5, 1):  # what was read before was rounded by its passes as well
        layers = make_prompt_cache(model)
        for start in range(0, len(read), width):
            logits = model(mx.array([read[start : start + width]]), cache=layers)
            mx.eval([logits, *(layer.state for layer in layers)])
        rows.append(logits[0, -1])
    gap: Any = mx.abs(rows[0][one] - rows[0][other]).item()
    noise: Any = mx.abs(mx.stack(rows[1:]) - rows[0]).max().item()
    return gap, noise


def header(tokens: int) -> str:
    return f"""# Every architecture of mlx_lm, drafted with and taken back

Written by `python -m tests.engine.architectures`; `test_architectures.py` holds it against reality. Each is a model
with random weights in float32, windows and chunks of 16 tokens.

- *Exact*: the text of {tokens} tokens is the one that mlx_lm generates without a draft, for a prompt shorter and
  one longer than the window, with drafts of 1 to 8 tokens that are right, half right and wrong.
- *Passes* of the target model for these {2 * tokens} tokens, in that order. Each round is one, and one more where
  whole passes are taken back and something was refused.
- *Reads again*: the recurrent layers alone read again what stays of a pass.

| architecture | caches | rollback | exact | passes: right / half right / wrong |
|---|---|---|---|---|
"""


def write(tokens: int = TOKENS) -> bool:
    """Prove all and write the table; return whether all are exact."""
    rows = []
    for name in architectures():
        row = Row(name, "", "", f"left out: {LEFT_OUT[name]}") if name in LEFT_OUT else proved(name, tokens)
        print(row.line(), flush=True)
        rows.append(row)
    TABLE.write_text(header(tokens) + "".join(row.line() + "\n" for row in rows))
    return not any("NO" in row.exact for row in rows)


def table() -> dict[str, list[str]]:
    """Return the table's rows by architecture."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in TABLE.read_text().splitlines()]
    return {row[0]: row for row in cells if len(row) == 5 and row[0] not in ("architecture", "---")}
