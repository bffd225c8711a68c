"""The contents of requests: kept only while the user has switched that on, in memory only, and bounded.

Prompts are private. So nothing is kept unless somebody wants to see it, none of it is written anywhere, and all of
it is forgotten when capture is switched off. For the event loop's thread only.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_TEXT = 256 * 1024  # characters of a request, and of an answer
MAX_TOTAL = 16 * 2**20  # characters of all
MAX_ENTRIES = 1000  # requests


@dataclass(slots=True)
class Content:
    """What a client sent, and what it got: None as long as that is not known."""

    request: str
    answer: str | None = None

    @property
    def size(self) -> int:
        """In characters."""
        return len(self.request) + len(self.answer or "")


class Contents:
    """Contents by the ids of requests, the least recently changed first. `on` says whether anything is kept."""

    def __init__(self) -> None:
        self.on = False
        self._kept: dict[str, Content] = {}
        self._size = 0

    def switch(self, *, on: bool) -> None:
        """Keep the contents of requests that come from now on, or forget all that was kept."""
        self.on = on
        if not on:
            self._kept.clear()
            self._size = 0

    def take_request(self, request_id: str, body: bytes) -> None:
        """Keep the body of a request; what is not text is replaced."""
        if self.on:
            kept = body if len(body) <= 4 * MAX_TEXT else body[: 2 * MAX_TEXT] + body[-2 * MAX_TEXT :]
            self._keep(request_id, Content(shortened(kept.decode("utf-8", "replace"), len(body) - len(kept))))

    def holds(self, request_id: str) -> bool:
        """Whether the answer of this request is to be kept as well."""
        return request_id in self._kept

    def take_answer(self, request_id: str, text: str) -> None:
        """Keep the answer of a request that is held."""
        if content := self._kept.pop(request_id, None):
            self._size -= content.size
            self._keep(request_id, Content(content.request, shortened(text)))

    def of(self, request_id: str) -> Content | None:
        """What is kept of a request."""
        return self._kept.get(request_id)

    def _keep(self, request_id: str, content: Content) -> None:
        self._kept[request_id] = content
        self._size += content.size
        while self._size > MAX_TOTAL or len(self._kept) > MAX_ENTRIES:
            oldest = next(iter(self._kept))
            self._size -= self._kept.pop(oldest).size


def shortened(text: str, left_out: int = 0) -> str:
    """A text with its middle cut out if it is too long: the beginning and the newest message are at its ends."""
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    left_out += len(text) - 2 * half
    return f"{text[:half]}\n… {left_out} characters left out …\n{text[-half:]}"
