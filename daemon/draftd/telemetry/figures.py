"""Numbers that another program reports: each function raises ValueError for what cannot be one. Pure."""

from __future__ import annotations

# More than any request or prompt can have. A number beyond it is damage, and would spoil a counter for good.
MAX_COUNT = 10**9
MAX_BYTES = 2**50


def count(value: object, maximum: int = MAX_COUNT) -> int:
    """A whole number from 0 to the maximum."""
    # A bool is an int to Python; in a count it is damage.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
        raise ValueError("not a count")
    return value


def optional(value: object) -> int | None:
    """A count, or None."""
    return None if value is None else count(value)


def positive(value: object) -> float:
    """A number above 0."""
    # Bounded, since products and sums of such numbers must stay numbers.
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not 1 / MAX_COUNT <= value <= MAX_COUNT
    ):
        raise ValueError("not a positive number")
    return float(value)
