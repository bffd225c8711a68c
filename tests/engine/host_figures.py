"""What a round costs beside the passes: `python -m tests.engine.host_figures [DAEMON_FOLDER]`. Takes minutes.

For a round, by the number of requests at work: milliseconds of processor time of the generation thread, operations
that the device is given, and calls in Python. The model is so small that its passes are next to nothing, and mlx
computes in another thread, also on the CPU: so what is computed does not count. Counts are exact; of the times, the
shortest of some repeats is shown, since a busy machine makes them longer only.

The ways: without drafts, at temperature 0 and 0.7; drafts of three tokens by the draft model; and mlx_lm's own
batching, without drafts. With the folder `daemon` of another checkout the same is measured of that, the two in
turn: so one can see what a change has brought.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from draftd.engine import records
from draftd.engine.generation.batch_policy import BatchPolicy
from draftd.engine.generation.choices import Choice
from draftd.protocol import MODEL_DRAFTER
from tests.engine.architectures.models import make, noisy
from tests.engine.stand_in import Asked, Generator

CLIENTS = (1, 2, 4, 8)
ROUNDS = 96  # that are looked at; what is done only now and then is in their mean
FIRST = 40  # rounds before those
REPEATS = 5

Meter = Callable[[], float]
"""Returns a number that grows."""
Way = Callable[[int, Meter], float]
"""Returns by how much it has grown in a round, with so many requests at work."""


class Metered(Generator):
    """Reads a meter at each cycle."""

    def __init__(self, models: tuple[Any, Any], meter: Meter) -> None:
        super().__init__(*models, ends=False)
        self.readings: list[float] = []
        self._meter = meter

    def _next_request(self, timeout: float | None = None) -> Any:
        taken = super()._next_request(timeout)
        if taken is None:
            self.readings.append(self._meter())
        return taken


def ours(models: tuple[Any, Any], rows: int, meter: Meter, **asked: Any) -> float:
    generator = Metered(models, meter)
    enough = 2 * rows + FIRST + ROUNDS
    requests = [Asked(prompt(row), 8 * enough, **asked) for row in range(rows)]
    for request in requests:
        vars(request)["put"] = _leaving(generator, request, enough)
    generator.serve(*((0, request) for request in requests))
    return (generator.readings[enough] - generator.readings[enough - ROUNDS]) / ROUNDS


def prompt(row: int) -> list[int]:
    return [(5 + 7 * n + row) % 200 for n in range(24)]


def _leaving(generator: Metered, request: Asked, cycles: int) -> Callable[[Any], None]:
    put = request.put

    def put_and_leave(what: Any) -> None:
        put(what)
        if len(generator.readings) > cycles:
            request.context.stop()

    return put_and_leave


def mlx_lms(target: Any, rows: int, meter: Meter) -> float:
    generate: Any = importlib.import_module("mlx_lm.generate")
    generator = generate.BatchGenerator(target, max_tokens=4 * (FIRST + ROUNDS))
    generator.insert([prompt(row) for row in range(rows)])
    readings: list[float] = []
    while len(readings) <= FIRST + ROUNDS:
        generator.next()
        readings.append(meter())
    return (readings[-1] - readings[-1 - ROUNDS]) / ROUNDS


@contextmanager
def always_drafting() -> Iterator[None]:
    policy: Any = BatchPolicy
    chooses = policy.choose
    policy.choose = lambda _, rows: [Choice(MODEL_DRAFTER, 3)] * len(rows)
    yield
    policy.choose = chooses


def ways() -> dict[str, Way]:
    sizes = {"num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 32}
    target, draft = make("qwen2", **sizes), noisy("qwen2", **sizes | {"num_hidden_layers": 1})

    def drafts_of_three(rows: int, meter: Meter) -> float:
        with always_drafting():
            return ours((target, draft), rows, meter, draft=3)

    return {
        "no drafts": lambda rows, meter: ours((target, None), rows, meter, draft=0),
        "no drafts, 0.7": lambda rows, meter: ours((target, None), rows, meter, draft=0, temperature=0.7),
        "drafts of 3": drafts_of_three,
        "mlx_lm's batching": lambda rows, meter: mlx_lms(target, rows, meter),
    }


def milliseconds() -> float:
    return 1000 * time.thread_time()


@contextmanager
def operations() -> Iterator[Meter]:
    """Count what mlx is asked to compute."""
    count = [0]

    def counting(compute: Any) -> Any:
        def call(*arrays: Any) -> Any:
            drawing = io.StringIO()
            mx.export_to_dot(drawing, *_flat(arrays))
            count[0] += drawing.getvalue().count("shape=rectangle")
            return compute(*arrays)

        return call

    core: Any = mx
    before = core.eval, core.async_eval
    core.eval, core.async_eval = map(counting, before)
    yield lambda: count[0]
    core.eval, core.async_eval = before


def _flat(arrays: Any) -> list[mx.array]:
    if isinstance(arrays, list | tuple):
        return [array for each in arrays for array in _flat(each)]
    return [arrays] if isinstance(arrays, mx.array) else []


@contextmanager
def calls() -> Iterator[Meter]:
    """Count calls of functions, also of those in C."""
    count = [0]

    def called(_: Any, event: str, __: Any) -> None:
        count[0] += event in {"call", "c_call"}

    sys.setprofile(called)
    yield lambda: count[0]
    sys.setprofile(None)


def figures() -> dict[str, list[list[float]]]:
    """Return the milliseconds, operations and calls of each way, by the number of requests."""
    vars(records)["report_generation"] = lambda *_: None
    found = {}
    for name, way in ways().items():
        times = [way(rows, milliseconds) for rows in CLIENTS]
        with operations() as meter:
            done = [way(rows, meter) for rows in CLIENTS]
        with calls() as meter:
            found[name] = [times, done, [way(rows, meter) for rows in CLIENTS]]
    return found


def main(folders: list[str]) -> None:
    if folders == ["-"]:
        print(json.dumps(figures()))
        return
    variants = {"here": "", **{folder: folder for folder in folders}}
    runs: dict[str, list[dict[str, list[list[float]]]]] = {name: [] for name in variants}
    for _ in range(REPEATS):
        for name, folder in variants.items():
            environment = os.environ | ({"PYTHONPATH": folder} if folder else {})
            command = [sys.executable, "-m", "tests.engine.host_figures", "-"]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"| ms, operations, calls | {' | '.join(f'{rows} at work' for rows in CLIENTS)} |")
    print("|---" * (len(CLIENTS) + 1) + "|")
    for way in runs["here"][0]:
        for name, made in runs.items():
            columns = zip(*(zip(*run[way], strict=True) for run in made), strict=True)
            cells = [tuple(map(min, zip(*column, strict=True))) for column in columns]
            shown = (f"{ms:.2f}, {operations:.0f}, {calls:.0f}" for ms, operations, calls in cells)
            print(f"| {way}, {name} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
