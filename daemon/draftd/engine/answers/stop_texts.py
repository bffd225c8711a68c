"""Ends an answer where one of the client's stop texts first stands in it. Pure.

Stop texts are texts, not tokens: one may begin in the middle of a token and end in another. So text is held back
while it may be the beginning of one. Where several stand in the text, the one that begins first counts, however the
text came in pieces.
"""

from collections.abc import Sequence
from typing import Any

from draftd.protocol import MAX_STOP_LENGTH, MAX_STOP_TEXTS


def checked(stop: Any) -> tuple[str, ...]:
    """Return the texts of a request's `stop`: a text, a list of them, or None. Raise ValueError for all else."""
    texts = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("stop must be a string or a list of strings")
    if len(texts) > MAX_STOP_TEXTS:
        raise ValueError(f"stop must have at most {MAX_STOP_TEXTS} texts")
    if not all(0 < len(text) <= MAX_STOP_LENGTH for text in texts):
        raise ValueError(f"stop must have texts of 1 to {MAX_STOP_LENGTH} characters")
    return tuple(texts)


class StopTexts:
    """Takes a text in pieces, gives what the client may have of it; `matched` is the stop text that ended it."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)
        self._held = ""
        self.matched: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop text has ended the text."""
        return self.matched is not None

    def feed(self, text: str) -> str:
        """Return what is certain to stand before any stop text."""
        if self.stopped or not self._texts:
            return "" if self.stopped else text
        buffer = self._held + text
        found = self._first(buffer)
        begun = min(_beginning(buffer, text) for text in self._texts)
        if found is not None and found <= begun:
            return self._stop(buffer, found)
        # A whole one behind the beginning of another waits, too: the other would begin first.
        self._held = buffer[begun:]
        return buffer[:begun]

    def finish(self) -> str:
        """Return what was held back, as no more text comes."""
        held, self._held = self._held, ""
        found = self._first(held)
        return held if found is None else self._stop(held, found)

    def _first(self, text: str) -> int | None:
        return min((at for stop in self._texts if (at := text.find(stop)) >= 0), default=None)

    def _stop(self, text: str, at: int) -> str:
        self.matched, self._held = next(stop for stop in self._texts if text.startswith(stop, at)), ""
        return text[:at]


def _beginning(text: str, stop: str) -> int:
    """Return where the end of `text` may be the beginning of `stop`; the length of the text if nowhere."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0 and not stop.startswith(text[at:]):
        at = text.find(stop[0], at + 1)
    return len(text) if at < 0 else at
