"""GET /api/events: what happens in the daemon, as server-sent events for any number of readers.

Theory of operation. One task makes the news, and only while somebody reads: after a change, and every few seconds
for what changes without notice (memory), it looks once for all readers and appends one piece of bytes to a short
backlog. A reader holds nothing but its place in that backlog. One that has fallen so far behind that its place is
gone gets a new snapshot instead of what it missed, so a slow reader costs no memory and holds nobody up.

Events: first a `snapshot` with the status, the requests and the newest lines of every worker's log; then a `status`
whenever it has changed, a `log` with the new lines of each worker, and `requests` with those that have changed. A
snapshot has the lines up to the last look, and the next piece of news those after it, so that no line comes twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
from itertools import islice
from typing import Any

from aiohttp import web

from draftd import clock
from draftd.telemetry.journal import Journal
from draftd.telemetry.request_record import as_json
from draftd.telemetry.worker_log import LogLine, WorkerLog
from draftd.web.aiohttp_app import EXCHANGE
from draftd.web.worker_errors import stopping

SETTLE = 0.05  # seconds between a change and the look: what happens together is sent together
MIN_REST = 0.4  # seconds between two looks: each reads every worker's memory from the process table
LOOK_EVERY = 5.0  # seconds without a change until the next look
HEARTBEAT = 10.0  # seconds of silence until a comment is sent
MAX_BACKLOG = 32  # pieces of news that a reader may be behind
MAX_LINES = 100  # of each worker's log, in a snapshot and in one piece of news

Status = dict[str, Any]
Lines = list[dict[str, Any]]


class LiveFeed:
    """`status` returns the body of /api/status with the figures of the last requests, `logs` a worker's log;
    `journal` has the requests.

    Set `changed` when the status or a log may have changed. There is news while `run` runs; when it is cancelled
    every stream ends, and no new one begins.
    """

    def __init__(
        self,
        status: Callable[[], Status],
        logs: Callable[[str], WorkerLog],
        journal: Journal,
        changed: asyncio.Event,
    ) -> None:
        self._status = status
        self._logs = logs
        self._journal = journal
        self._told = 0  # the version of the journal up to which its news is in the backlog
        self._changed = changed
        self._readers = 0
        self._wanted = asyncio.Event()
        self._news = asyncio.Event()
        self._backlog: deque[bytes] = deque(maxlen=MAX_BACKLOG)
        self._made = 0  # pieces of news, including those that have left the backlog
        self._sent: Status = {}  # the newest status in the backlog
        self._seen: dict[str, int] = {}  # number of the last line that was sent, by worker
        self._looked = -MIN_REST  # monotonic seconds
        self._closed = False

    def routes(self) -> list[web.RouteDef]:
        """The path and its handler."""
        return [web.get("/api/events", self.handle)]

    async def run(self) -> None:
        """Make the news until cancelled."""
        try:
            while True:
                await self._wanted.wait()
                with suppress(TimeoutError):
                    async with clock.limit(LOOK_EVERY):
                        await self._changed.wait()
                await asyncio.sleep(SETTLE)
                if self._readers:
                    self._look()
                await asyncio.sleep(MIN_REST)
        except asyncio.CancelledError:
            self._closed = True
            self._wake()
            raise

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """GET /api/events. Raises WorkerError (503) when the daemon stops."""
        if self._closed:
            raise stopping()
        exchange = request[EXCHANGE]
        async with aclosing(self.read()) as pieces:
            async for piece in pieces:
                await exchange.write(piece)
        await exchange.finish(b"")
        return exchange.response

    async def read(self) -> AsyncGenerator[bytes, None]:
        """The stream of one reader, with a comment after each silence; ends when `run` has ended."""
        self._readers += 1
        self._wanted.set()
        try:
            piece, place = self._snapshot(), self._made
            yield piece
            while not self._closed:
                if place != self._made:
                    piece, place = self._since(place), self._made
                    yield piece
                elif not await self._until_news():
                    yield b": nothing new\n\n"
        finally:
            self._readers -= 1
            if not self._readers:
                self._wanted.clear()

    def _since(self, place: int) -> bytes:
        missed = self._made - place
        if missed > len(self._backlog):
            return self._snapshot()
        return b"".join(islice(self._backlog, len(self._backlog) - missed, None))

    async def _until_news(self) -> bool:
        with suppress(TimeoutError):
            async with clock.limit(HEARTBEAT):
                await self._news.wait()
                return True
        return False

    def _snapshot(self) -> bytes:
        if time.monotonic() - self._looked > MIN_REST:  # many who come together share one look
            self._look()
        logs = {
            name: _shown(line for line in self._logs(name).tail(MAX_LINES) if line.seq <= last)
            for name, last in self._seen.items()
        }
        requests = [as_json(record) for record in self._journal.since(0) if record.version <= self._told]
        return _event("snapshot", {"status": self._sent, "logs": logs, "requests": requests})

    def _look(self) -> None:
        """Add what is new to the backlog."""
        self._changed.clear()
        self._looked = time.monotonic()
        status = self._status()
        names = dict.fromkeys(row["worker"] for row in status["workers"])
        new = {name: lines for name in names if (lines := self._new_lines(name))}
        news = b""
        if status != self._sent:
            self._sent = status
            news += _event("status", status)
        if new:
            news += _event("log", new)
        if changed := self._journal.since(self._told):
            self._told = self._journal.version
            news += _event("requests", [as_json(record) for record in changed])
        self._seen = {name: self._seen[name] for name in names}
        if news:
            self._backlog.append(news)
            self._made += 1
            self._wake()

    def _new_lines(self, name: str) -> Lines:
        newest = self._logs(name).tail(MAX_LINES)
        last = newest[-1].seq if newest else -1
        seen = self._seen.get(name, -1)
        if seen > last:  # the log is a new one: its profile was removed and came back
            seen = -1
        self._seen[name] = last
        shown = _shown(line for line in newest if line.seq > seen)
        if newest and (skipped := newest[0].seq - seen - 1) > 0:
            shown.insert(0, {"time": newest[0].time, "text": f"… {skipped} lines skipped", "chatter": False})
        return shown

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _shown(lines: Iterable[LogLine]) -> Lines:
    return [{"time": line.time, "text": line.text, "chatter": line.chatter} for line in lines]


def _event(kind: str, data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
