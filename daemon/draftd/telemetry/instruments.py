"""The counters and histograms that are pushed to. A profile's series start at 0, and go when the profile goes."""

from collections.abc import Iterable
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from draftd.protocol import OUTCOMES

UNKNOWN = "_unknown"
ENDPOINTS = (
    "chat.completions", "completions", "messages", "count_tokens", "responses", "embeddings", "rerank", "audio",
    "images", "models", "other",
)  # fmt: skip

# Series that exist at 0 before anything happened, so that rate() sees the first event too.
_EXPECTED = (("chat.completions", "200"), ("completions", "200"))
_EXPECTED_UNKNOWN = (("chat.completions", "404"), ("completions", "404"), ("models", "200"), ("other", "404"))
_EXPECTED_REASONS = ("exit", "memory")

# Local models: a cached prompt answers in 50 ms, a long one on a laptop's CPU takes minutes.
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)
_FIRST_TOKEN_SECONDS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300)
_WAIT_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SPEEDS = (1, 2, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100, 130, 160, 200, 300, 500)

Instrument = TypeVar("Instrument", Counter, Histogram)


class Instruments:
    """All instruments but those of the spare, the machine and the folder of stored prompts have `profile` as their
    first label. The `_unknown` series exist from the start.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._all: list[tuple[Counter | Histogram, tuple[str, ...]]] = []
        self._registry = registry
        self._series: dict[tuple[object, tuple[str, ...]], Any] = {}
        counter, histogram = self._counter, self._histogram
        self.proposed = counter("draft_tokens_proposed_total", "Draft tokens proposed.")
        self.accepted = counter("draft_tokens_accepted_total", "Draft tokens accepted by the target model.")
        self.rounds = counter("draft_rounds_total", "Rounds of proposal and verification.")
        self.prompt = counter("prompt_tokens_total", "Tokens of prompts, cached ones included.")
        self.cached = counter(
            "prompt_tokens_cached_total", "Tokens of prompts that were cached, and so not read."
        )
        self.stored = counter(
            "stored_prompts_total", "Prompt caches that were stored, restored or refused.", "outcome"
        )
        self.completion = counter("completion_tokens_total", "Tokens generated.")
        self.log_errors = counter("log_write_errors_total", "Failed attempts to write the worker's log file.")
        self.restarts = counter("worker_restarts_total", "Restarts of the worker.", "reason")
        self.requests = counter(
            "requests_total", "Requests, by HTTP status; 499: the client left.", "endpoint", "status"
        )
        self.duration = histogram(
            "request_duration_seconds", "From request to last byte.", _SECONDS, "endpoint"
        )
        self.first_token = histogram(
            "time_to_first_token_seconds", "From request to first token.", _FIRST_TOKEN_SECONDS
        )
        self.speed = histogram("tokens_per_second", "Generation speed after the first token.", _SPEEDS)
        self.wait = histogram("queue_wait_seconds", "Time in the daemon's queue.", _WAIT_SECONDS)
        self.spare_memory = Gauge(
            "draftd_warm_spare_memory_bytes", "Memory of the warm spare; 0 without one.", registry=registry
        )
        self.pressure = Gauge(
            "draftd_memory_pressure",
            "The machine's memory pressure: 1 normal, 2 warning, 4 critical; 0 if the system does not say.",
            registry=registry,
        )
        self.stored_files = Gauge(
            "draftd_stored_prompt_files", "Stored prompts on the disk, of all workers.", registry=registry
        )
        self.stored_bytes = Gauge("draftd_stored_prompt_bytes", "Their bytes.", registry=registry)
        self._expect(UNKNOWN, _EXPECTED_UNKNOWN)

    def series(self, instrument: Instrument, *labels: str) -> Instrument:
        """The series with these labels. The instrument's own `labels` takes ten times as long to find it."""
        found: Instrument | None = self._series.get((instrument, labels))
        if found is None:
            found = self._series[instrument, labels] = instrument.labels(*labels)
        return found

    def declare(self, profile: str) -> None:
        """Make the profile's series, at 0."""
        for instrument, labels in self._all:
            if labels == ("profile",):
                instrument.labels(profile)
        for reason in _EXPECTED_REASONS:
            self.restarts.labels(profile, reason)
        for outcome in OUTCOMES:
            self.stored.labels(profile, outcome)
        self._expect(profile, _EXPECTED)

    def retire(self, profile: str) -> None:
        """Remove every series of the profile, whatever its other labels."""
        self._series = {key: one for key, one in self._series.items() if key[1][0] != profile}
        for instrument, labels in self._all:
            series = [sample for family in instrument.collect() for sample in family.samples]
            keys = {tuple(one.labels[label] for label in labels) for one in series}
            for key in keys:
                if key[0] == profile:
                    instrument.remove(*key)

    def _expect(self, profile: str, answers: Iterable[tuple[str, str]]) -> None:
        for endpoint, status in answers:
            self.requests.labels(profile, endpoint, status)
            self.duration.labels(profile, endpoint)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        made = Counter(f"draftd_{name}", text, ("profile", *labels), registry=self._registry)
        self._all.append((made, ("profile", *labels)))
        return made

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        made = Histogram(
            f"draftd_{name}", text, ("profile", *labels), buckets=buckets, registry=self._registry
        )
        self._all.append((made, ("profile", *labels)))
        return made
