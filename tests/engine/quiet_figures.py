"""Drafting figures that need a quiet machine: `python -m tests.engine.quiet_figures`. Takes about a minute.

What can be counted comes first; then speeds by the demo pair, fewer rounds than `figures` has by itself; then a
worker without a draft model: our loop with lookups against mlx_lm's batching, in tokens per second of all clients.
Where the last are 0.97 or more at every number of clients, lookups cost a profile without a draft model nothing.
"""

from __future__ import annotations

import statistics
import time

import mlx_lm

from draftd.demo import TARGET
from draftd.engine import records
from tests.engine import batching_figures, figures, rewrite_figures

CLIENTS = (1, 2, 4)
ROUNDS = 3


def lookups_against_batching() -> None:
    """Print a line for each number of clients."""
    target, tokenizer = mlx_lm.load(str(TARGET))[:2]
    ends = frozenset(tokenizer.eos_token_ids)
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
        for question in batching_figures.QUESTIONS
    ]
    ours = batching_figures.Ours(target, None, ends, max(CLIENTS))
    for clients in CLIENTS:
        ratios = []
        for _ in range(ROUNDS + 1):
            batched = batching_figures.batched(target, ends, prompts, clients)
            looked_up = ours.run(prompts, clients)
            ratios.append(looked_up.total / batched.total)
        differ = batching_figures.differing(looked_up, batched)
        print(
            f"{clients} clients: lookups to batching {statistics.median(ratios[1:]):.2f} x, {differ} texts differ",
            flush=True,
        )


def main() -> None:
    """Print all, each part with the seconds that it took."""
    vars(records)["report_generation"] = lambda *_: None
    figures.ROUNDS, figures.TOKENS, batching_figures.TOKENS = 2, 100, 80
    for part in (rewrite_figures.main, lambda: figures.main([]), lookups_against_batching):
        began = time.perf_counter()
        part()
        print(f"({time.perf_counter() - began:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
