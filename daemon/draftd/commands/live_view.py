"""What `draftd up` shows while it serves: a live table of the workers, and above it a line per event.

Theory of operation. The event loop only puts lines into a bounded queue; a thread of this module's own takes them
out and writes them. A terminal that does not take what is written (its user pressed Ctrl-S, a connection hangs)
then holds up that thread and nobody else, and the lines that found no room are counted and reported. The thread
asks the loop for the workers before it draws them, and never looks at them itself.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from draftd.console import TONES, Terminal, colour_of
from draftd.live_table import make_live
from draftd.status_table import peer_lines, workers_table
from draftd.telemetry.logging_setup import Format, telling
from draftd.telemetry.request_record import RequestRecord, as_json
from draftd.telemetry.told import Told, clock, in_column, of_request, short_names

if TYPE_CHECKING:
    import asyncio

    from draftd.daemon import Daemon

MAX_LINES = 1000  # lines that may wait to be written
TICK, REST = 0.25, 1.0  # seconds between two looks at the workers: while one changes its state, and otherwise
MIN_ROWS, AROUND = 4, 7  # rows of the table at least; lines around them
MOVING = {"waiting", "starting", "stopping", "backoff"}


def request_line(record: RequestRecord, fmt: Format) -> str:
    """The log's line for a request that has ended: in words, or in JSON like the log's other lines."""
    if fmt == "console":
        return str(of_request(record))
    stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    said = {"event": "request", "logger": "web", "level": "info", "timestamp": stamp}
    return json.dumps(said | {"worker": record.worker} | as_json(record))


def writing(write: Callable[[str], object], fmt: Format) -> Callable[[Sequence[RequestRecord]], None]:
    """What writes the lines of requests; no request fails because a stream does not take its line."""

    def take(records: Sequence[RequestRecord]) -> None:
        with suppress(OSError):
            write("\n".join(request_line(record, fmt) for record in records))

    return take


class LiveView:
    """`say`, `tell` and `take` return at once, from whatever thread."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._lines: queue.Queue[Told | str | None] = queue.Queue(MAX_LINES)
        self._missed = 0
        self._daemon: Daemon | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rows: list[dict[str, Any]] = []  # of the workers
        self._peers: list[dict[str, Any]] = []
        self._names: dict[str, str] = {}
        self._asked = 0.0  # when the loop was last asked for the workers, in monotonic seconds

    def name(self, profiles: Iterable[str]) -> None:
        """Find short names for these profiles, for use in the lines."""
        self._names = short_names(profiles)

    def follow(self, daemon: Daemon, loop: asyncio.AbstractEventLoop) -> None:
        """Show this daemon from now on."""
        self._daemon, self._loop = daemon, loop
        self._look()

    def say(self, text: str) -> None:
        """Show a text of any length."""
        self._put(text)

    def tell(self, told: Told) -> None:
        """Show a line."""
        self._put(told)

    def take(self, records: Iterable[RequestRecord]) -> None:
        """Show the lines of requests that have ended."""
        for record in records:
            self._put(of_request(record))

    def _put(self, line: Told | str) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._missed += 1

    @contextmanager
    def running(self, level: str) -> Iterator[None]:
        """Show the table, and the log's events of at least `level`, while the block runs."""
        thread = threading.Thread(target=self._write, name="live view", daemon=True)
        thread.start()
        try:
            with telling(self.tell, level):
                yield
        finally:
            self._end()
            thread.join(timeout=1.0)  # a terminal that takes nothing must not keep the daemon from ending

    def _end(self) -> None:
        with suppress(queue.Full):
            self._lines.put(None, timeout=1.0)

    def _write(self) -> None:
        terminal = self._terminal
        live = make_live(terminal, self._table, transient=True)
        with suppress(OSError), live:  # OSError: the terminal has gone
            while (line := self._next(live)) is not None:
                terminal.say(line if isinstance(line, str) else self._text(line))
                if missed := self._missed:
                    self._missed -= missed
                    terminal.say(Text(f"… {missed} lines were not shown", style="dim"))
                if self._lines.empty():
                    self._ask()
                    live.refresh()

    def _next(self, live: Live) -> Told | str | None:
        """The next line; the table is drawn anew until there is one."""
        while True:
            moves = any(row["state"] in MOVING for row in self._rows)
            try:
                return self._lines.get(timeout=TICK if moves else REST)
            except queue.Empty:
                self._ask()
                live.refresh()

    def _ask(self) -> None:
        if self._loop is not None and time.monotonic() - self._asked >= TICK:
            self._asked = time.monotonic()
            with suppress(RuntimeError):  # it is closed: the daemon has ended
                self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        if self._daemon is not None:
            body = self._daemon.report.live()
            self._rows, self._peers = body["workers"], body["peers"]
            self.name(row["name"] for row in self._rows)

    def _table(self) -> RenderableType:
        # Half of the screen: the lines above have room too, and in a terminal half as wide all is still on it.
        most = max(MIN_ROWS, self._terminal.height // 2 - AROUND)
        table = [workers_table(self._rows, self._terminal.width, most)] if self._rows else []
        return Group(*table, *peer_lines(self._peers, MIN_ROWS))

    def _text(self, told: Told) -> Text:
        who = self._names.get(told.who, told.who)
        return Text.assemble(
            (f"{clock(told.time)} ", "dim"),
            (in_column(who, self._names.values()), colour_of(told.who)),
            (told.text, TONES[told.tone]),
        )
