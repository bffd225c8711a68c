"""GET /api/logs: what the workers and the daemon wrote; only what is for people, unless all is asked for."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from draftd.errors import RequestError
from draftd.telemetry.output import DAEMON, Sink
from draftd.telemetry.worker_log import LogLine, WorkerLog
from draftd.web.aiohttp_app import EXCHANGE
from draftd.web.router import Router
from draftd.workers.supervisor import Supervisor

DEFAULT_LINES = 100
OWN = "daemon"  # the name of the daemon's own log, unless a profile has it

Shown = Callable[[LogLine], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """The handlers, and the parts of the daemon that they ask. `before` is called before a log is read.

    It writes the lines that still wait, so that whoever has an answer finds its line.
    """

    router: Router
    supervisor: Supervisor
    sink: Sink
    before: Callable[[], None]

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers."""
        return [web.get("/api/logs", self.merged), web.get("/api/logs/{name}", self.log)]

    async def merged(self, request: web.Request) -> web.StreamResponse:
        """GET /api/logs: the newest lines of all logs; takes the same parameters as the log of one worker."""
        self.before()
        return await _send(request, self.sink.merged)

    async def log(self, request: web.Request) -> web.StreamResponse:
        """GET /api/logs/{name}?lines=N&since=T&raw=1&follow=1&json=1: the newest lines of a worker's log.

        `daemon` is the daemon's own log. `since` is in epoch seconds. `raw` adds the lines that are for machines,
        `follow` those to come; with `json` each line is an object.
        """
        self.before()
        return await _send(request, self._named(request.match_info["name"]))

    def _named(self, name: str) -> WorkerLog:
        try:
            profile = self.router.table.resolve(name)
        except RequestError:
            if name != OWN:
                raise
            return self.sink.log(DAEMON)
        return self.sink.log(self.supervisor.worker(profile.name).name)


async def _send(request: web.Request, source: WorkerLog) -> web.StreamResponse:
    raw, shown = _flag(request, "raw"), _object if _flag(request, "json") else _text
    newest = source.select(max(1, _lines(request)), raw=raw, since=_since(request))
    seen = source.last
    if not _flag(request, "follow"):
        return web.Response(text="".join(map(shown, newest)))
    exchange = request[EXCHANGE]
    exchange.stream_type = "text/plain; charset=utf-8"
    await exchange.write("".join(map(shown, newest)).encode())
    async for line in source.follow(seen):
        if raw or not line.chatter:
            await exchange.write(shown(line).encode())
    return exchange.response


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "0") not in {"0", ""}


def _lines(request: web.Request) -> int:
    text = request.query.get("lines", str(DEFAULT_LINES))
    if not text.isdecimal() or len(text) > 6:
        raise RequestError(400, "lines must be a number", param="lines")
    return int(text)


def _since(request: web.Request) -> float:
    try:
        since = float(request.query.get("since", "0"))
    except ValueError:
        since = math.nan
    if not math.isfinite(since):
        raise RequestError(400, "since must be a time in epoch seconds", param="since")
    return since


def _text(line: LogLine) -> str:
    worker = f"{line.worker}: " if line.worker and line.worker != DAEMON else ""
    return f"{time.strftime('%H:%M:%S', time.localtime(line.time))} {worker}{line.text}\n"


def _object(line: LogLine) -> str:
    worker = "" if line.worker == DAEMON else line.worker
    return json.dumps({"time": line.time, "worker": worker, "text": line.text}) + "\n"
