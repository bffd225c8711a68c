"""What the engine reports about drafting: acceptance by position, draft lengths, costs, the estimated speedup.

Counted for each profile, and made into metrics at each scrape. A position is a label from 1 to 64, the longest
draft that a profile or a request may ask for.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from draftd.protocol import MAX_DRAFT_TOKENS, Costs
from draftd.telemetry.records import GenerationReport

WINDOW = 50  # requests that ratios, estimates and medians look back on
_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 64)


@dataclass(slots=True)
class Speculation:
    """One profile's figures. `lengths` counts rounds by the tokens proposed in them; `costs` are the latest."""

    accepted: Counter[int] = field(default_factory=Counter)
    proposed: Counter[int] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    proposed_by: Counter[str] = field(default_factory=Counter)
    accepted_by: Counter[str] = field(default_factory=Counter)
    passes: int = 0
    rows: int = 0
    costs: Costs | None = None
    _estimates: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def add(self, report: GenerationReport) -> None:
        """Count one request. One that drafted nothing has nothing to say about drafting."""
        self.passes += report.passes
        self.rows += report.rows
        if not report.proposed:
            return
        proposed = report.proposed_by_position[:MAX_DRAFT_TOKENS]
        self.proposed.update(dict(enumerate(proposed, 1)))
        self.accepted.update(dict(enumerate(report.accepted_by_position[:MAX_DRAFT_TOKENS], 1)))
        for length, (rounds, longer) in enumerate(zip(proposed, (*proposed[1:], 0), strict=False), 1):
            if rounds > longer:
                self.lengths[length] += rounds - longer
        self.proposed_by.update({name: counts.proposed for name, counts in report.drafters.items()})
        self.accepted_by.update({name: counts.accepted for name, counts in report.drafters.items()})
        if report.rule:
            self.rules[report.rule] += 1
        self.costs = report.costs or self.costs
        if report.speedup and report.tokens:
            self._estimates.append((report.tokens, report.speedup))

    def speedup(self) -> float | None:
        """Estimated time without drafting ÷ time with it, over the last 50 drafted requests together."""
        without = sum(tokens for tokens, _ in self._estimates)
        return without / sum(tokens / factor for tokens, factor in self._estimates) if without else None


def families(profiles: Mapping[str, Speculation]) -> Iterator[Metric]:
    """The metrics of all profiles."""
    accepted = _by_position("accepted", "Draft tokens accepted, by their position in the draft.")
    proposed = _by_position("proposed", "Draft tokens proposed, by their position in the draft.")
    accepted_by = _by_drafter("accepted", "Draft tokens accepted, by what proposed them.")
    proposed_by = _by_drafter("proposed", "Draft tokens proposed, by what proposed them.")
    length = HistogramMetricFamily(
        "draftd_draft_length", "Draft tokens proposed in a round.", labels=("profile",)
    )
    speedup = GaugeMetricFamily(
        "draftd_draft_speedup_estimate",
        "Estimated speedup over no drafting, last 50 drafted requests.",
        labels=("profile",),
    )
    passes = CounterMetricFamily(
        "draftd_target_passes",
        "Passes of the target model, for each request that was in them.",
        labels=("profile",),
    )
    rows = CounterMetricFamily(
        "draftd_target_pass_rows", "Requests that were in these passes.", labels=("profile",)
    )
    for profile, one in profiles.items():
        passes.add_metric([profile], one.passes)
        rows.add_metric([profile], one.rows)
        for family, counts in ((accepted, one.accepted), (proposed, one.proposed)):
            for position in sorted(counts):
                family.add_metric([profile, str(position)], counts[position])
        for family, by_name in ((accepted_by, one.accepted_by), (proposed_by, one.proposed_by)):
            for drafter in sorted(by_name):
                family.add_metric([profile, drafter], by_name[drafter])
        length.add_metric([profile], *_histogram(one.lengths))
        if (estimate := one.speedup()) is not None:
            speedup.add_metric([profile], estimate)
    yield from (accepted, proposed, accepted_by, proposed_by, length, speedup, passes, rows)


def _by_position(what: str, text: str) -> CounterMetricFamily:
    name = f"draftd_draft_{what}_by_position"
    return CounterMetricFamily(name, text, labels=("profile", "position"))


def _by_drafter(what: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"draftd_draft_{what}_by_drafter", text, labels=("profile", "drafter"))


def _histogram(lengths: Counter[int]) -> tuple[list[tuple[str, float]], float]:
    """The cumulative buckets, and the sum."""
    buckets = [(str(float(length)), _up_to(lengths, length)) for length in _LENGTHS]
    return [*buckets, ("+Inf", lengths.total())], sum(length * rounds for length, rounds in lengths.items())


def _up_to(lengths: Counter[int], limit: int) -> int:
    return sum(rounds for length, rounds in lengths.items() if length <= limit)
