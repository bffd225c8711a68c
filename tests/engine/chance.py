"""Are numbers drawn from a distribution? Pearson's test, without a table of it."""

import math
from collections.abc import Sequence
from statistics import NormalDist


def chi_square(drawn: Sequence[int], shares: Sequence[float]) -> float:
    """Return Pearson's statistic; infinite if something was drawn that has no share."""
    counts = [drawn.count(value) for value in range(len(shares))]
    if any(count for count, share in zip(counts, shares, strict=True) if not share):
        return math.inf
    expected = [len(drawn) * share for share in shares]
    return sum((count - want) ** 2 / want for count, want in zip(counts, expected, strict=True) if want)


def most_by_chance(freedom: int, level: float = 1e-4) -> float:
    """Return the value that the statistic passes by chance with probability `level`, by Wilson and Hilferty."""
    if not freedom:
        return 1e-6
    spread = 2 / (9 * freedom)
    quantile = NormalDist().inv_cdf(1 - level)
    return float(freedom * (1 - spread + quantile * math.sqrt(spread)) ** 3)
