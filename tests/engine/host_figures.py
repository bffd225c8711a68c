"""What a round costs beside the passes: `python -m tests.engine.host_figures [DAEMON_FOLDER]`. Takes a minute.

Milliseconds of processor time of the generation thread for a round, by the number of requests at work, with a model
so small that its passes are nothing (mlx computes in another thread, also on the CPU, so what it computes does not
count). So it does not depend on what else the machine does. The ways: without drafts, at temperature 0 and 0.7;
drafts of three tokens by the draft model; all that the policy chooses; and mlx_lm's own batching, without drafts.

With the folder `daemon` of another checkout the same is measured of that, the two in turn: so one can see what a
change has brought.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from draftd.engine import records
from draftd.engine.generation.batch_policy import BatchPolicy
from draftd.engine.generation.choices import Choice
from draftd.protocol import MODEL_DRAFTER
from tests.engine.architectures.models import make, noisy
from tests.engine.stand_in import Asked, Generator

CLIENTS = (1, 2, 4, 8)
ROUNDS = 150  # that are timed; their median would hide what is done only now and then, so it is their mean
FIRST = 40  # rounds before those
REPEATS = 3


class Timing(Generator):
    """Notes the processor time at each cycle."""

    def __init__(self, target: Any, draft: Any) -> None:
        super().__init__(target, draft, ends=False)
        self.times: list[float] = []

    def _next_request(self, timeout: float | None = None) -> Any:
        taken = super()._next_request(timeout)
        if taken is None:
            self.times.append(time.thread_time())
        return taken


def ours(models: tuple[Any, Any], rows: int, **asked: Any) -> float:
    """Return the milliseconds of a round."""
    generator = Timing(*models)
    tokens = 16 * (FIRST + ROUNDS)
    requests = [Asked([(5 + 7 * n + row) % 200 for n in range(24)], tokens, **asked) for row in range(rows)]
    enough = 2 * rows + FIRST + ROUNDS
    for request in requests:
        vars(request)["put"] = _leaving(generator, request, enough)
    generator.serve(*((0, request) for request in requests))
    timed = generator.times[enough - ROUNDS : enough]
    return 1000 * (timed[-1] - timed[0]) / (len(timed) - 1)


def _leaving(generator: Timing, request: Asked, cycles: int) -> Callable[[Any], None]:
    put = request.put

    def put_and_leave(what: Any) -> None:
        put(what)
        if len(generator.times) > cycles:
            request.context.stop()

    return put_and_leave


def mlx_lms(target: Any, rows: int) -> float:
    """Return the same of mlx_lm's batching."""
    generate: Any = importlib.import_module("mlx_lm.generate")
    generator = generate.BatchGenerator(target, max_tokens=4 * (FIRST + ROUNDS))
    generator.insert([[(5 + 7 * n + row) % 200 for n in range(24)] for row in range(rows)])
    times: list[float] = []
    while len(times) < FIRST + ROUNDS:
        generator.next()
        times.append(time.thread_time())
    return 1000 * (times[-1] - times[FIRST]) / (ROUNDS - 1)


def always_drafting(self: BatchPolicy, rows: Any) -> list[Choice]:
    return [Choice(MODEL_DRAFTER, 3)] * len(rows)


def figures() -> dict[str, list[float]]:
    """Return the milliseconds of each way, by the number of requests."""
    vars(records)["report_generation"] = lambda *_: None
    sizes = {"num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 32}
    target, draft = make("qwen2", **sizes), noisy("qwen2", **sizes | {"num_hidden_layers": 1})
    chooses = BatchPolicy.choose

    def drafted(rows: int) -> float:
        vars_of: Any = BatchPolicy
        vars_of.choose = always_drafting
        try:
            return ours((target, draft), rows, draft=3)
        finally:
            vars_of.choose = chooses

    ways: dict[str, Callable[[int], float]] = {
        "no drafts": lambda rows: ours((target, None), rows, draft=0),
        "no drafts, 0.7": lambda rows: ours((target, None), rows, draft=0, temperature=0.7),
        "drafts of 3": drafted,
        "auto": lambda rows: ours((target, draft), rows, draft=8, auto=True),
        "mlx_lm's batching": lambda rows: mlx_lms(target, rows),
    }
    return {name: [way(rows) for rows in CLIENTS] for name, way in ways.items()}


def main(folders: list[str]) -> None:
    if folders == ["-"]:
        print(json.dumps(figures()))
        return
    variants = {"here": "", **{folder: folder for folder in folders}}
    runs: dict[str, list[dict[str, list[float]]]] = {name: [] for name in variants}
    for _ in range(REPEATS):
        for name, folder in variants.items():
            environment = os.environ | ({"PYTHONPATH": folder} if folder else {})
            command = [sys.executable, "-m", "tests.engine.host_figures", "-"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    print(mx.default_device())
    print(f"| ms a round | {' | '.join(f'{rows} at work' for rows in CLIENTS)} |")
    print("|---" * (len(CLIENTS) + 1) + "|")
    for way in runs["here"][0]:
        for name, made in runs.items():
            cells = [statistics.median(column) for column in zip(*(run[way] for run in made), strict=True)]
            print(f"| {way}, {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
