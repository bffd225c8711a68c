"""The states of workers as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric

from draftd.protocol import CacheSize

STATES = ("stopped", "asleep", "waiting", "starting", "ready", "stopping", "backoff", "failed")


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """One profile's worker at the time of a scrape.

    `state` is one of STATES; `memory_bytes` is of the process group, None where there is none; `queue_depth`
    is in requests; both are None for a profile that shares the worker of another sample, which has them.
    `prompt_cache` is the size of the engine's, None where it is not known.
    `start_seconds` is how long the last start took until ready, None before the first; `accounting` whether the
    engine counts draft tokens, `draft_refused` whether nothing can be drafted with the models.
    """

    profile: str
    state: str
    memory_bytes: int | None
    queue_depth: int | None
    start_seconds: float | None
    accounting: bool
    draft_refused: bool = False
    prompt_cache: CacheSize | None = None


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    """An empty gauge of draftd's; `profile` is its first label."""
    return GaugeMetricFamily(f"draftd_{name}", text, labels=("profile", *labels))


def workers(samples: Iterable[WorkerSample]) -> Iterator[Metric]:
    """The metrics of all workers."""
    state = gauge("worker_state", "1 for the state that the worker is in, 0 for the others.", "state")
    accounting = gauge(
        "draft_accounting", "1 if the engine counts draft tokens, 0 if it does not or is not up."
    )
    refused = gauge(
        "draft_refused", "1 if the models are of a kind that nothing can be drafted with, else 0."
    )
    memory = gauge("worker_memory_bytes", "Memory of the worker's processes; once, if profiles share it.")
    depth = gauge("queue_depth", "Requests that wait for the worker; once, if profiles share it.")
    start = gauge("worker_start_seconds", "How long the worker's last start took until it was ready.")
    cached = gauge("prompt_cache_bytes", "Cached prompts in memory; once, if profiles share the worker.")
    entries = gauge("prompt_cache_entries", "How many there are; once, if profiles share the worker.")
    for sample in samples:
        for name in STATES:
            state.add_metric([sample.profile, name], sample.state == name)
        accounting.add_metric([sample.profile], sample.accounting)
        refused.add_metric([sample.profile], sample.draft_refused)
        if sample.queue_depth is not None:
            depth.add_metric([sample.profile], sample.queue_depth)
        if sample.memory_bytes is not None:
            memory.add_metric([sample.profile], sample.memory_bytes)
        if sample.start_seconds is not None:
            start.add_metric([sample.profile], sample.start_seconds)
        if sample.prompt_cache is not None:
            cached.add_metric([sample.profile], sample.prompt_cache.bytes)
            entries.add_metric([sample.profile], sample.prompt_cache.entries)
    return iter((accounting, refused, state, memory, depth, start, cached, entries))
