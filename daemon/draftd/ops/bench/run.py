"""Runs a bench: sends each trial to the bench's workers, one at a time, and puts the report together."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from draftd import __version__
from draftd.errors import DraftdError
from draftd.ops.bench.plan import TEMPERATURES, WARM_UP, Plan, Trial, Variant
from draftd.ops.bench.report import Report
from draftd.ops.bench.stats import Sample, cells, standings, verdict
from draftd.ops.generation import EmptyAnswerError, OpenAIServer
from draftd.protocol import MODEL_DRAFTER

WARM_UP_TOKENS = 16


def measure(
    server: OpenAIServer,
    plan: Plan,
    trials: Sequence[Trial],
    max_tokens: int,
    done: Callable[[Trial], object],
) -> list[Sample]:
    """Warm every variant up, then measure the trials in their order; `done` is called after each.

    An answer without text is left out. Raises DraftdError for anything else that goes wrong.
    """
    for variant in plan.variants:
        for temperature in TEMPERATURES:  # at each of them an adaptive length learns its costs anew
            server.generate(_body(variant, WARM_UP, WARM_UP_TOKENS, temperature, 0))
    samples = []
    for trial in trials:
        with suppress(EmptyAnswerError):
            samples.append(_sample(server, trial, max_tokens))
        done(trial)
    if not samples:
        raise DraftdError("no trial gave an answer with text: there is nothing to compare")
    return samples


def _sample(server: OpenAIServer, trial: Trial, max_tokens: int) -> Sample:
    variant = trial.variant
    body = _body(variant, trial.prompt, max_tokens, trial.temperature, trial.run + 1)
    made = server.generate(body)
    drafted = made.drafted
    return Sample(
        variant.label,
        trial.kind,
        trial.temperature,
        trial.run,
        made.tokens,
        made.seconds,
        made.first_token,
        drafted.proposed if drafted else None,
        drafted.accepted if drafted else None,
    )


def _body(variant: Variant, prompt: str, max_tokens: int, temperature: float, seed: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": variant.worker,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    # With the same seed the engine writes the same text, however it drafts, up to ties of two tokens; a text that
    # diverges at a tie is as good a sample. No lookup: it would find the answers of earlier runs.
    body |= {"seed": seed, "drafters": [MODEL_DRAFTER] if variant.draft_length else []}
    return body | ({"num_draft_tokens": variant.draft_length} if variant.draft_length else {})


def make_report(plan: Plan, samples: Sequence[Sample], runs: int, max_tokens: int, busy: float) -> Report:
    """The figures of `samples`, with what they were measured on."""
    labels = [variant.label for variant in plan.variants]
    drafting = plan.workers[plan.variants[1].worker]
    return Report(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine(),
        versions=_versions(),
        model=drafting.model,
        draft_model=drafting.draft_model or "",
        runs=runs,
        max_tokens=max_tokens,
        busy=busy,
        samples=tuple(samples),
        cells=tuple(cells(samples, labels)),
        overall=tuple(standings(samples, labels)),
        verdict=tuple(verdict(samples, labels)),
    )


def how_busy() -> float:
    """Percent of all CPUs in use over half a second. Blocking."""
    return float(psutil.cpu_percent(interval=0.5))


def machine() -> str:
    """The processor, its cores, memory and system: 'Apple M4 Pro, 12 cores, 24 GB, macOS 15.1'."""
    system = f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else platform.system()
    memory = psutil.virtual_memory().total / 2**30
    return f"{_processor()}, {psutil.cpu_count()} cores, {memory:.0f} GB, {system}"


def _processor() -> str:
    with suppress(OSError, subprocess.SubprocessError, StopIteration):
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=5
            ).stdout.strip()
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.machine()


def _versions() -> dict[str, str]:
    found = {"draftd": __version__, "python": platform.python_version()}
    for package in ("mlx", "mlx-lm"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
