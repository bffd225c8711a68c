"""From single generations to medians, speedups and a verdict in words. Pure.

A speedup is the median over runs of "this variant ÷ no drafting", each pair measured on the same prompt within
seconds of each other. Spreads are the first and third quartile. Over several cells, speedups are averaged
geometrically, as ratios are.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MATTERS = 0.05  # a speedup closer to 1 than this is no difference
UNCERTAIN = 1.3  # quartiles this far apart around no difference: it may be large, either way


@dataclass(frozen=True, slots=True)
class Sample:
    """One generation. `seconds` from the request to the last token; `proposed` is None where nobody counted."""

    variant: str
    kind: str
    temperature: float
    run: int
    tokens: int
    seconds: float
    first_token: float
    proposed: int | None = None
    accepted: int | None = None

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, first and third quartile."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One variant on one kind of prompt at one temperature. `acceptance` is None where nothing was drafted."""

    variant: str
    kind: str
    temperature: float
    runs: int
    speed: Spread
    first_token: Spread
    speed_up: Spread | None
    acceptance: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """One variant over several cells. `speed_up` is against the baseline, `low` and `high` the quartiles of all
    single comparisons.
    """

    variant: str
    speed_up: float
    low: float
    high: float
    acceptance: float | None

    @property
    def faster(self) -> bool:
        """Clearly: by more than what does not matter, and in three of four comparisons."""
        return self.speed_up > 1 + MATTERS and self.low > 1

    @property
    def slower(self) -> bool:
        """Clearly, in the same sense."""
        return self.speed_up < 1 - MATTERS and self.high < 1


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def acceptance(samples: Iterable[Sample]) -> float | None:
    """All accepted ÷ all proposed."""
    counted = [(s.proposed, s.accepted) for s in samples if s.proposed and s.accepted is not None]
    proposed = sum(offered for offered, _ in counted)
    return sum(kept for _, kept in counted) / proposed if proposed else None


def ratios(samples: Sequence[Sample], variant: str, baseline: str) -> list[float]:
    """The speed of `variant` ÷ that of the baseline, for each prompt that both have answered."""
    base = {(s.kind, s.temperature, s.run): s.speed for s in samples if s.variant == baseline}
    keys = ((s, (s.kind, s.temperature, s.run)) for s in samples if s.variant == variant)
    return [s.speed / base[key] for s, key in keys if key in base]


def cells(samples: Sequence[Sample], variants: Sequence[str]) -> list[Cell]:
    """In the order of kinds as measured, then of temperatures, then of `variants`, the baseline first."""
    kinds = list(dict.fromkeys(s.kind for s in samples))
    places = {(s.kind, s.temperature) for s in samples}
    made = []
    for kind, temperature in sorted(places, key=lambda place: (kinds.index(place[0]), place[1])):
        here = [s for s in samples if (s.kind, s.temperature) == (kind, temperature)]
        for variant in variants:
            own = [s for s in here if s.variant == variant]
            if own:
                made.append(_cell(own, ratios(here, variant, variants[0]), baseline=variant == variants[0]))
    return made


def _cell(own: Sequence[Sample], compared: Sequence[float], *, baseline: bool) -> Cell:
    return Cell(
        own[0].variant,
        own[0].kind,
        own[0].temperature,
        len(own),
        spread([s.speed for s in own]),
        spread([s.first_token for s in own]),
        spread(compared) if compared and not baseline else None,
        acceptance(own),
    )


def standings(samples: Sequence[Sample], variants: Sequence[str]) -> list[Standing]:
    """Every variant but the baseline over all of `samples`, best first."""
    made = []
    for variant in variants[1:]:
        compared = ratios(samples, variant, variants[0])
        per_cell = [c.speed_up.median for c in cells(samples, [variants[0], variant]) if c.speed_up]
        if not per_cell:
            continue
        around = spread(compared)
        mean = statistics.geometric_mean(per_cell)
        kept = acceptance(s for s in samples if s.variant == variant)
        made.append(Standing(variant, mean, around.low, around.high, kept))
    return sorted(made, key=lambda standing: -standing.speed_up)


# --- in words -----------------------------------------------------------------------------------------------


def verdict(samples: Sequence[Sample], variants: Sequence[str]) -> list[str]:
    """A sentence for each kind of prompt, and one or two for all of them."""
    kinds = list(dict.fromkeys(s.kind for s in samples))
    said = []
    slow: dict[str, list[str]] = {}
    for kind in kinds:
        ranked = standings([s for s in samples if s.kind == kind], variants)
        if ranked:
            said.append(f"{kind}: {_judged(ranked)}")
        for standing in ranked:
            if standing.slower:
                slow.setdefault(standing.variant, []).append(kind)
    everywhere = standings(samples, variants)
    if everywhere:
        said.append(f"overall: {_judged(everywhere)}")
    best = everywhere[0] if everywhere else None
    if best and best.faster and (worse := slow.get(best.variant)):
        said.append(f"But {best.variant} is slower than no drafting on {' and '.join(worse)}.")
    return said


def _judged(ranked: Sequence[Standing]) -> str:
    best = ranked[0]
    if best.faster:
        worse = [f"{s.variant} ({_times(s)})" for s in ranked[1:] if s.slower]
        but = f" Slower than no drafting: {', '.join(worse)}." if worse else ""
        return f"{best.variant} is best: {_times(best)} the speed of no drafting{_accepted(best)}.{but}"
    if all(standing.slower for standing in ranked):
        return (
            f"drafting makes it slower here: the best, {best.variant}, reaches {_times(best)} the speed of "
            f"no drafting{_accepted(best)}. Serve this model without a draft model."
        )
    within = (
        f"{_times(best)} the speed of no drafting{_accepted(best)}, within {best.low:.2f} to {best.high:.2f}"
    )
    if best.high > UNCERTAIN * best.low:
        advice = "Repeat with more runs, and with less else running."
        return f"too uncertain to tell: the best, {best.variant}, reaches {within}. {advice}"
    return f"drafting makes no clear difference here: the best, {best.variant}, reaches {within}."


def _times(standing: Standing) -> str:
    return f"{standing.speed_up:.2f}x"


def _accepted(standing: Standing) -> str:
    return "" if standing.acceptance is None else f", {standing.acceptance:.0%} accepted"
