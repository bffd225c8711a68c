"""What has happened, told to all who keep or show it: requests that have ended, and events of the daemon's log."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from draftd.telemetry.journal import Journal
from draftd.telemetry.output import DAEMON, Sink
from draftd.telemetry.request_record import RequestRecord
from draftd.telemetry.told import Told, of_request

OnEnded = Callable[[Sequence[RequestRecord]], None]  # called with requests that have ended


class Chronicle:
    """Keeps the `journal`, and writes to the logs of the `sink`. `changed` is called when either has news, and
    those in `on_ended` with requests that have ended. For the thread of the event loop, but for `take_event`.
    """

    def __init__(self, sink: Sink, changed: Callable[[], None]) -> None:
        self._sink = sink
        self._changed = changed
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self.journal = Journal(changed, self._ended)
        self.on_ended: list[OnEnded] = []

    def take_event(self, told: Told) -> None:
        """Keep an event of the daemon's log with the logs, whatever thread it comes from."""
        if threading.get_ident() == self._thread:
            self.journal.tell()  # what has ended before the event stands before it
            self._sink.note_event(told.who, told.text, told.line)
            self._changed()
        else:
            self._loop.call_soon_threadsafe(self.take_event, told)

    def _ended(self, records: Sequence[RequestRecord]) -> None:
        lines: dict[str, list[str]] = {}
        for record in records:
            told = of_request(record)
            lines.setdefault(told.who or DAEMON, []).append(told.text)
        for who, texts in lines.items():
            self._sink.note(who, "\n".join(texts))
        for listener in self.on_ended:
            listener(records)
        self._changed()
