"""Numbers in JSON end where more digits would not change them. Pure.

JSON's numbers have no bound, and small models write 0.333... until their answer is full. Who reads JSON takes
numbers as floating-point ones of 64 bits, as a rule, and 17 significant digits tell all of those apart. So a number
that has as many, and a point, has said what it can: no further digit may follow, if the number may end there.
Before the point each digit counts, so there they may go on for as long as there is such a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SIGNIFICANT = 17  # digits
LONGEST = 340  # digits, with zeros: what is longer is 0 behind the point, and too large before it
EXPONENT = 4  # digits: no exponent of as many is that of a number of 64 bits
TAIL = LONGEST + 40  # bytes of an answer that are looked at
BITS = 32
_NUMBER = re.compile(rb"(?<![\d.eE+])(\d+)(\.\d*)?([eE][+-]?\d*)?$")


def is_complete(text: bytes) -> bool:
    """Whether a text ends with a number, and no further digit would change it."""
    found = _NUMBER.search(text) if text[-1:].isdigit() else None
    if not found:
        return False
    whole, fraction, exponent = found.groups(b"")
    if exponent:
        return len(exponent.lstrip(b"eE+-")) >= EXPONENT
    significant = (whole + fraction).replace(b".", b"").lstrip(b"0")
    longest = len(fraction or whole) >= LONGEST
    return longest or (bool(fraction) and len(significant) >= SIGNIFICANT)


class Numbers:
    """Bounds the numbers of answers in one vocabulary; `decode` returns the bytes of a token."""

    def __init__(self, decode: Callable[[int], bytes], vocabulary: int) -> None:
        self._decode = decode
        texts = [decode(token) for token in range(vocabulary)]
        self._behind = [token for token, text in enumerate(texts) if text in {b",", b"]", b"}"}]
        self._quotes = [token for token, text in enumerate(texts) if text == b'"']
        digits = np.zeros(-(-vocabulary // BITS) * BITS, np.bool_)
        digits[[token for token, text in enumerate(texts) if text[:1].isdigit()]] = True
        self._others: NDArray[np.uint32] = ~np.packbits(digits, bitorder="little").view(np.uint32)

    def after(self, tail: bytes, token: int) -> bytes:
        """Return the end of an answer with one more token."""
        return (tail + self._decode(token))[-TAIL:]

    def bounded(self, allowed: bytes, tail: bytes) -> bytes:
        """Return which tokens may follow, a bit for each, without digits that say nothing.

        In a text digits may go on: there a quote may follow. And so may they where nothing else may follow.
        """
        if not is_complete(tail):
            return allowed
        words = np.frombuffer(allowed, np.uint32)

        def may_follow(tokens: list[int]) -> bool:
            return any(words[token // BITS] >> (token % BITS) & 1 for token in tokens)

        if may_follow(self._quotes) or not may_follow(self._behind):
            return allowed
        return (words & self._others[: len(words)]).tobytes()
