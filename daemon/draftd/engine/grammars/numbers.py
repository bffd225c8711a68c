"""Numbers in JSON end where more digits would not change them. Pure.

JSON's numbers have no bound, and small models write 0.333... until their answer is full. Who reads JSON takes
numbers as floating-point ones of 64 bits, as a rule, and 17 significant digits tell all of those apart. So a number
that has as many, and a point, has said what it can: no further digit may follow, if the number may end there.
Before the point each digit counts, so there they may go on for as long as there is such a number; and an exponent
has two digits, three after a minus, since most of those with more stand for no number at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SIGNIFICANT = 17  # digits
LONGEST = (
    308  # digits before the point; and behind it, with zeros, where what comes later is as good as nothing
)
EXPONENT, NEGATIVE_EXPONENT = 2, 3  # digits
TAIL = LONGEST + 40  # bytes of an answer that are looked at
BITS = 32
_NUMBER = re.compile(rb"(?<![\d.eE+])(\d+)(\.\d*)?([eE][+-]?\d*)?$")


def further(text: bytes) -> int | None:
    """Return how many more digits may follow at the end of a text; None where it does not end with a number."""
    found = _NUMBER.search(text)
    if not found:
        return None
    whole, fraction, exponent = found.groups(b"")
    if exponent:
        digits = len(exponent.lstrip(b"eE+-"))
        return max(0, (NEGATIVE_EXPONENT if b"-" in exponent else EXPONENT) - digits)
    if not fraction:
        return max(0, LONGEST - len(whole))
    significant = (whole + fraction[1:]).lstrip(b"0")
    least = int(fraction == b".")  # a point has a digit behind it
    return max(least, min(SIGNIFICANT - len(significant), LONGEST + 1 - len(fraction)))


class Numbers:
    """Bounds the numbers of answers in one vocabulary; `decode` returns the bytes of a token."""

    def __init__(self, decode: Callable[[int], bytes], vocabulary: int) -> None:
        self._decode = decode
        texts = [decode(token) for token in range(vocabulary)]
        self._behind = [token for token, text in enumerate(texts) if text in {b",", b"]", b"}"}]
        self._quotes = [token for token, text in enumerate(texts) if text == b'"']
        runs = np.zeros(-(-vocabulary // BITS) * BITS, np.uint8)  # digits that each token begins with
        runs[:vocabulary] = [len(text) - len(text.lstrip(b"0123456789")) for text in texts]
        # For each number of digits, bits of the tokens that have no more.
        self._at_most: list[NDArray[np.uint32]] = [
            np.packbits(runs <= most, bitorder="little").view(np.uint32) for most in range(int(runs.max()))
        ]

    def after(self, tail: bytes, token: int) -> bytes:
        """Return the end of an answer with one more token."""
        return (tail + self._decode(token))[-TAIL:]

    def bounded(self, allowed: bytes, tail: bytes) -> bytes:
        """Return which tokens may follow, a bit for each, without those that have too many digits.

        In a text digits may go on: there a quote may follow. And so may they where nothing else may follow.
        """
        more = further(tail)
        if more is None or more >= len(self._at_most):
            return allowed
        words = np.frombuffer(allowed, np.uint32)

        def may_follow(tokens: list[int]) -> bool:
            return any(words[token // BITS] >> (token % BITS) & 1 for token in tokens)

        if may_follow(self._quotes) or (not more and not may_follow(self._behind)):
            return allowed
        bounded = words.copy()  # it may end with a word for the end of the answer
        bounded[: len(self._at_most[more])] &= self._at_most[more][: len(words)]
        return bounded.tobytes()
