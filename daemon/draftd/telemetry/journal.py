"""The requests that are open and the last ones that have ended: figures only, no text of a prompt or an answer
unless the user has the `contents` captured.

For the event loop's thread only. What has changed since a look can be asked for: each change gives a record a new
`version`, which counts up over all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from draftd.telemetry.contents import Contents
from draftd.telemetry.request_record import RequestRecord

MAX_ENDED = 100  # requests that are kept after their end
MAX_ERROR = 300  # characters of what went wrong
SETTLE = 0.05  # seconds until the end of a request is reported: those that end close together are written in one go


class Journal:
    """`on_change` is called after each change, and `on_ended` soon after with the requests that have ended."""

    def __init__(
        self, on_change: Callable[[], None], on_ended: Callable[[Sequence[RequestRecord]], None]
    ) -> None:
        self._on_change = on_change
        self._on_ended = on_ended
        self._untold: list[RequestRecord] = []
        self._open: dict[str, RequestRecord] = {}
        self._ended: deque[RequestRecord] = deque(maxlen=MAX_ENDED)
        self.contents = Contents()
        self.version = 0

    def begin(self, request_id: str, dialect: str, agent: str) -> RequestRecord:
        """A request has come; `agent` is what its client calls itself (the User-Agent header)."""
        record = RequestRecord(request_id, dialect, agent, task=asyncio.current_task())
        self._open[request_id] = record
        self.note(record)
        return record

    def note(self, record: RequestRecord) -> None:
        """More is known of a request: something in its record has been set."""
        self.version = record.version = self.version + 1
        self._on_change()

    def take_body(self, record: RequestRecord, body: bytes) -> None:
        """The body of a request has come; it is kept if the user wants that."""
        if self.contents.on:
            self.contents.take_request(record.id, body)
            record.captured = True
            self.note(record)

    def end(self, record: RequestRecord, status: int, seconds: float) -> None:
        """The request has been answered, refused or left by its client."""
        self._open.pop(record.id, None)
        record.task, record.phase, record.status, record.seconds = None, "ended", status, seconds
        self._ended.append(record)
        self.note(record)
        if not self._untold:
            asyncio.get_running_loop().call_later(SETTLE, self.tell)
        self._untold.append(record)

    def tell(self) -> None:
        """Report the requests that have ended, without waiting any longer."""
        untold, self._untold = self._untold, []
        if untold:
            self._on_ended(untold)

    def cancel(self, request_id: str) -> bool:
        """End an open request with an error; returns whether there is one with this id."""
        record = self._open.get(request_id)
        if record is None or record.task is None or record.cancelled:
            return False
        record.cancelled = True
        record.task.cancel()
        return True

    def since(self, version: int) -> list[RequestRecord]:
        """What has changed after `version`, in the order in which the requests came; 0: all that is known."""
        return sorted((one for one in self._all() if one.version > version), key=lambda one: one.began)

    def _all(self) -> Iterator[RequestRecord]:
        yield from self._ended
        yield from self._open.values()
