"""`python -m tests.engine.group.figures`: two ranks on loopback beside one process, in turn, on a small model.

Wall times mean little on a machine that others use: look at the ratios, and at processor time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from draftd.protocol import DRAFTERS_HEADER
from tests.engine.group.test_two_ranks import Group, pair_of
from tests.engine.served import Engine, turn

TURNS, TOKENS = 7, 64
LAYERS = 2  # of the model


def processor_seconds(engine: Engine) -> float:
    root = psutil.Process(engine.process.pid)
    times = [each.cpu_times() for each in (root, *root.children())]
    return sum(each.user + each.system for each in times)


def rate(engine: Engine, drafters: str, turn_number: int) -> tuple[float, float]:
    """Ask for an answer; return its tokens per second, and seconds of processor time for each."""
    before = processor_seconds(engine)
    body = {"prompt": turn(f"Question {turn_number}"), "max_tokens": TOKENS, "logit_bias": {"2": -100}}
    answer = engine.ask("/v1/completions", {DRAFTERS_HEADER: drafters}, **body)
    used = processor_seconds(engine) - before
    timings = answer["timings"]
    return timings["predicted_per_second"], used / timings["predicted_n"]


def speeds(group: Engine, alone: Engine) -> None:
    for drafters in ("", "model"):
        found = [(rate(group, drafters, n), rate(alone, drafters, n)) for n in range(TURNS + 1)][1:]
        ratio = statistics.median(g[0] / a[0] for g, a in found)
        dear = statistics.median(g[1] for g, _ in found), statistics.median(a[1] for _, a in found)
        print(
            f"{'drafted' if drafters else 'no drafts'}: {ratio:.2f} times the tokens/s of one process; "
            f"{1000 * dear[0]:.1f} ms of processor time a token on both ranks, {1000 * dear[1]:.1f} ms alone"
        )


def starts(make: Callable[[], Engine]) -> float:
    """Return the seconds to the first token."""
    began = time.monotonic()
    engine = make()
    try:
        engine.listening().complete("x", max_tokens=1)
        return time.monotonic() - began
    finally:
        engine.stop()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        target, draft = pair_of("qwen2", Path(folder))
        flags = ("--model", target, "--draft-model", draft)
        found = [(starts(lambda: Group(*flags)), starts(lambda: Engine(*flags))) for _ in range(3)]
        medians = [statistics.median(column) for column in zip(*found, strict=True)]
        print(f"start to first token: {medians[0]:.2f} s for two ranks, {medians[1]:.2f} s for one process")
        group, alone = Group(*flags), Engine(*flags)
        try:
            for engine in (group.listening(), alone.listening()):
                engine.complete("x", max_tokens=1)
            speeds(group, alone)
        finally:
            group.stop()
            alone.stop()
        print(f"exchanges a pass: {2 * LAYERS} of mlx_lm's, and 2 of ours: the steps, and the tokens")


if __name__ == "__main__":
    main()
