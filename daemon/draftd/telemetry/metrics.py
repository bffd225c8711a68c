"""Prometheus instruments of the daemon, in a registry of their own.

Theory of operation. Counters and histograms are pushed as things happen. States (worker state, memory, queue
depth, the acceptance ratio) are read when someone asks, by a collector, so that they cannot be out of date.

Every label value comes from configuration or from a fixed set. A profile is a label only between `declare`
and `retire`; a request for anything else counts under `_unknown`, and other numbers for it are dropped. So
the number of series depends on the profiles alone, whatever clients send.

A request of our engine is counted by its `GenerationReport`, one of a `command` by its `DraftAcceptance`: see
`records`.
For the event loop's thread only.
"""

import math
import platform
import re
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Info, disable_created_metrics, exposition
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from draftd.stored_folder import FolderSize
from draftd.telemetry.figures import MAX_COUNT
from draftd.telemetry.instruments import ENDPOINTS, UNKNOWN, Instruments
from draftd.telemetry.prompt_caches import Reuse, StoredPrompt
from draftd.telemetry.records import DraftAcceptance, GenerationReport, Record
from draftd.telemetry.speculation import WINDOW, Speculation, families
from draftd.telemetry.worker_samples import WorkerSample, gauge, workers

CLIENT_LEFT = 499  # the status to report for a client that did not wait for its answer

# A reason is a word of ours. Should a message ever come instead, it must not become a series.
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Draft tokens: totals since the profile was declared; accepted ÷ proposed of the last 50 requests.

    Requests that drafted nothing are not among the 50. `ratio` is None until there is one.
    """

    proposed: int
    accepted: int
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Recent:
    """The last 50 requests of which each figure is known, oldest first: accepted ÷ proposed; tokens/s."""

    acceptance: tuple[float, ...]
    tokens_per_second: tuple[float, ...]


@dataclass(slots=True)
class _Tally:
    """What /api/status tells about one profile and Prometheus does not keep."""

    proposed: int = 0
    accepted: int = 0
    requests: int = 0
    speculation: Speculation = field(default_factory=Speculation)
    reuse: Reuse = field(default_factory=Reuse)
    recent: deque[DraftAcceptance] = field(default_factory=lambda: deque(maxlen=WINDOW))
    speeds: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def add(self, record: DraftAcceptance) -> None:
        self.proposed += record.proposed
        self.accepted += record.accepted
        if record.proposed:  # a request that drafted nothing says nothing about drafting
            self.recent.append(record)

    def ratio(self) -> float | None:
        proposed = sum(record.proposed for record in self.recent)
        return sum(record.accepted for record in self.recent) / proposed if proposed else None


class _AtScrape(Collector):
    """The states: read at each scrape, from the tallies and from the snapshot that was bound."""

    def __init__(self, tallies: dict[str, _Tally]) -> None:
        self._tallies = tallies
        self.snapshot: Callable[[], Iterable[WorkerSample]] = tuple

    def collect(self) -> Iterator[Metric]:
        yield from self._drafting()
        yield from self._reuse()
        yield from families({profile: tally.speculation for profile, tally in self._tallies.items()})
        # While a worker is replaced there may be two of a profile. A series can be given once: the last wins.
        yield from workers({sample.profile: sample for sample in self.snapshot()}.values())

    def _drafting(self) -> Iterator[Metric]:
        ratio = gauge("draft_acceptance_ratio", "Accepted / proposed draft tokens of the last 50 requests.")
        for profile, tally in self._tallies.items():
            if (value := tally.ratio()) is not None:
                ratio.add_metric([profile], value)
        yield ratio

    def _reuse(self) -> Iterator[Metric]:
        ratio = gauge("prompt_cache_hit_ratio", "Cached / all tokens of the last 50 prompts.")
        for profile, tally in self._tallies.items():
            if (value := tally.reuse.ratio()) is not None:
                ratio.add_metric([profile], value)
        yield ratio


class Metrics:
    """All that `/metrics` and the numbers in `/api/status` are made of.

    Times are in seconds, of the monotonic clock. A number that cannot have been measured (negative, NaN, infinite)
    is dropped, and raises nothing: what a worker says about its usage must not be able to break a request.
    """

    def __init__(self, version: str, mlx_lm: str) -> None:
        # *_created series are not part of the interface, and would be one more for each of the others.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._tallies: dict[str, _Tally] = {}
        self._push = Instruments(self._registry)
        self._at_scrape = _AtScrape(self._tallies)
        self._registry.register(self._at_scrape)
        build = Info("draftd_build", "Versions that run.", registry=self._registry)
        build.info({"version": version, "python": platform.python_version(), "mlx_lm": mlx_lm})

    def add(self, collector: Collector) -> None:
        """Have these series collected at each scrape too."""
        self._registry.register(collector)

    def declare(self, profile: str) -> None:
        """Make the series of a profile, at 0; for a known one it changes nothing.

        Raises ValueError for `_unknown`, which stands for everything that is not a profile.
        """
        if profile == UNKNOWN:
            raise ValueError(f"{UNKNOWN} cannot be the name of a profile")
        if profile not in self._tallies:
            self._tallies[profile] = _Tally()
            self._push.declare(profile)

    def retire(self, profile: str) -> None:
        """Forget a profile that was removed: call it once its worker has drained and stopped."""
        if self._tallies.pop(profile, None) is not None:
            self._push.retire(profile)

    def record(self, profile: str, record: Record) -> None:
        """Count what the worker said."""
        if (tally := self._tallies.get(profile)) is None:
            return
        match record:
            case DraftAcceptance():
                self._accepted(profile, tally, record)
            case GenerationReport():
                self._accepted(profile, tally, DraftAcceptance(record.accepted, record.proposed))
                self._push.rounds.labels(profile).inc(record.rounds)
                tally.speculation.add(record)
            case StoredPrompt():
                tally.reuse.stored[record.outcome] += 1
                self._push.stored.labels(profile, record.outcome).inc()

    def _accepted(self, profile: str, tally: _Tally, record: DraftAcceptance) -> None:
        tally.add(record)
        self._push.proposed.labels(profile).inc(record.proposed)
        self._push.accepted.labels(profile).inc(record.accepted)

    def request(self, profile: str | None, endpoint: str, status: int, seconds: float) -> None:
        """Count one answered request. `status` is the HTTP status, CLIENT_LEFT if the client left.

        `profile` is None, or any name that is not declared, for a request that no profile answers.
        """
        label = profile if profile is not None and profile in self._tallies else UNKNOWN
        endpoint = endpoint if endpoint in ENDPOINTS else "other"
        push, answer = self._push, str(status) if 100 <= status <= 599 else "other"
        push.series(push.requests, label, endpoint, answer).inc()
        if _measured(seconds):
            push.series(push.duration, label, endpoint).observe(seconds)
        if label != UNKNOWN:
            self._tallies[label].requests += 1

    def first_token(self, profile: str, seconds: float) -> None:
        """From the request's arrival to the first token, including the wait in the queue."""
        if profile in self._tallies and _measured(seconds):
            self._push.series(self._push.first_token, profile).observe(seconds)

    def generation(
        self,
        profile: str,
        *,
        prompt_tokens: int,
        completion_tokens: int,
        seconds: float | None,
        cached_tokens: int | None = None,
    ) -> None:
        """Count the tokens of one request; `seconds` is from its first token to its last, None if unknown.
        `cached_tokens` are those of the prompt that had not to be read, None if the worker does not say.

        The speed is of the tokens after the first, as that many came in `seconds`.
        """
        if (tally := self._tallies.get(profile)) is None:
            return
        prompt_tokens, completion_tokens = _tokens(prompt_tokens), _tokens(completion_tokens)
        self._push.series(self._push.prompt, profile).inc(prompt_tokens)
        self._push.series(self._push.completion, profile).inc(completion_tokens)
        if cached_tokens is not None:
            tally.reuse.add(prompt_tokens, cached_tokens := min(_tokens(cached_tokens), prompt_tokens))
            self._push.series(self._push.cached, profile).inc(cached_tokens)
        if seconds is not None and seconds > 0 and _measured(seconds) and completion_tokens > 1:
            speed = (completion_tokens - 1) / seconds
            tally.speeds.append(speed)
            self._push.series(self._push.speed, profile).observe(speed)

    def queue_wait(self, profile: str, seconds: float) -> None:
        """How long one request waited in the queue for its turn; one that left the queue earlier is not counted."""
        if profile in self._tallies and _measured(seconds):
            self._push.series(self._push.wait, profile).observe(seconds)

    def restarted(self, profile: str, reason: str) -> None:
        """Count a restart. `reason` is a short word of ours, such as "exit", never a message."""
        if profile in self._tallies:
            word = reason if _WORD.fullmatch(reason) else "other"
            self._push.restarts.labels(profile, word).inc()

    def log_write_error(self, profile: str) -> None:
        """Count a failed attempt to write the worker's log file."""
        if profile in self._tallies:
            self._push.log_errors.labels(profile).inc()

    def bind(
        self,
        snapshot: Callable[[], Iterable[WorkerSample]],
        spare: Callable[[], int] = int,
        pressure: Callable[[], int] = int,
        stored: Callable[[], FolderSize] = FolderSize,
    ) -> None:
        """Take the workers' states, the spare's bytes, the pressure on the machine's memory and what is stored of
        prompts from these at each scrape; `render` raises as they do.
        """
        self._at_scrape.snapshot = snapshot
        self._push.spare_memory.set_function(spare)
        self._push.pressure.set_function(pressure)
        self._push.stored_files.set_function(lambda: stored().files)
        self._push.stored_bytes.set_function(lambda: stored().bytes)

    def acceptance(self, profile: str) -> Acceptance:
        """Zeros and None for a profile that is not declared."""
        tally = self._tallies.get(profile) or _Tally()
        return Acceptance(tally.proposed, tally.accepted, tally.ratio())

    def recent(self, profile: str) -> Recent:
        """Empty for a profile that is not declared."""
        tally = self._tallies.get(profile) or _Tally()
        ratios = tuple(record.accepted / record.proposed for record in tally.recent)
        return Recent(ratios, tuple(tally.speeds))

    def speculation(self, profile: str) -> Speculation:
        """Empty for a profile that is not declared."""
        return (self._tallies.get(profile) or _Tally()).speculation

    def reuse(self, profile: str) -> Reuse:
        """Empty for a profile that is not declared."""
        return (self._tallies.get(profile) or _Tally()).reuse

    def tokens_per_second(self, profile: str) -> float | None:
        """Median of the last 50 generations whose speed is known."""
        tally = self._tallies.get(profile)
        return statistics.median(tally.speeds) if tally and tally.speeds else None

    def requests(self, profile: str) -> int:
        """Requests since the profile was declared, whatever their status."""
        tally = self._tallies.get(profile)
        return tally.requests if tally else 0

    def render(self, accept: str | None = None) -> tuple[bytes, str]:
        """The exposition and its content type: OpenMetrics if Accept asks for it, else text 0.0.4."""
        if accept and "application/openmetrics-text" in accept.lower():
            body = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return body, "application/openmetrics-text; version=1.0.0; charset=utf-8"
        return exposition.generate_latest(self._registry), "text/plain; version=0.0.4; charset=utf-8"


def _tokens(said: object) -> int:
    # A worker said so, and no type checker has seen it: neither a string nor 1e400 must reach a counter.
    return said if isinstance(said, int) and 0 <= said <= MAX_COUNT else 0


def _measured(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds >= 0
