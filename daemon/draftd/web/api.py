"""Everything that is answered by the daemon itself: models, status, logs, orders, metrics, health."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from draftd import __version__
from draftd.errors import RequestError
from draftd.telemetry.metrics import Metrics
from draftd.telemetry.worker_log import LogLine, WorkerLog
from draftd.web import dashboard, status_report
from draftd.web.live_feed import EventStream
from draftd.web.proxy import Proxy
from draftd.web.router import Router
from draftd.workers.spare import SpareStatus
from draftd.workers.states import Event, Restart, Start, Stop
from draftd.workers.supervisor import Supervisor

ORDERS: Mapping[str, Event] = {"restart": Restart("operator"), "start": Start(), "stop": Stop("operator")}
LINES = 100  # of a log that are shown if nothing else is asked for


@dataclass(frozen=True, slots=True)
class Api:
    """The handlers, and the parts of the daemon that they ask."""

    supervisor: Supervisor
    router: Callable[[], Router]
    proxy: Proxy
    metrics: Metrics
    logs: Callable[[str], WorkerLog]
    reload: Callable[[], list[str]]
    events: EventStream
    started: float  # epoch seconds
    spare: Callable[[], SpareStatus | None]

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers."""
        return [
            web.get("/v1/models", self.models),
            web.get("/v1/models/{id:.+}", self.model),
            web.get("/metrics", self.prometheus),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/api/status", self.status),
            web.post("/api/workers/{name}/{order}", self.order),
            web.post("/api/reload", self.reload_profiles),
            web.get("/api/logs/{name}", self.log),
            web.get("/api/events", self.events.handle),
            *dashboard.routes(),
        ]

    async def models(self, request: web.Request) -> web.Response:
        """GET /v1/models."""
        return web.json_response(
            status_report.models(self.router().profiles.profiles.values(), int(self.started))
        )

    async def model(self, request: web.Request) -> web.Response:
        """GET /v1/models/{id}."""
        profile = self.router().resolve(request.match_info["id"])
        return web.json_response(status_report.model(profile, int(self.started)))

    async def prometheus(self, request: web.Request) -> web.Response:
        """GET /metrics."""
        body, kind = self.metrics.render(request.headers.get("Accept"))
        return web.Response(body=body, headers={"Content-Type": kind})

    async def healthz(self, request: web.Request) -> web.Response:
        """GET /healthz: the daemon lives."""
        return web.json_response({"status": "ok"})

    async def readyz(self, request: web.Request) -> web.Response:
        """GET /readyz: 503 until every worker that starts by itself is ready."""
        profiles = self.router().profiles.profiles
        waiting = {
            worker.name: worker.state
            for worker in self.supervisor.snapshot()
            if worker.state != "ready" and profiles[worker.name].autostart
        }
        status = 503 if waiting else 200
        return web.json_response(
            {"status": "waiting" if waiting else "ok", "waiting": waiting}, status=status
        )

    async def status(self, request: web.Request) -> web.Response:
        """GET /api/status."""
        return web.json_response(self._status())

    def _status(self) -> dict[str, Any]:
        router = self.router()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": status_report.iso(self.started),
            "default_model": router.default.name if router.default else None,
            "workers": self.workers(),
            "warm_spare": status_report.spare(self.spare()),
        }

    def live(self) -> dict[str, Any]:
        """The status with what /api/events tells beside it."""
        status = self._status()
        for row in status["workers"]:
            name = row["name"]
            row.update(status_report.live(self.proxy.admission(name).active, self.metrics.recent(name)))
        return status

    def workers(self) -> list[dict[str, Any]]:
        """Every worker as /api/status tells it."""
        return [
            status_report.worker(worker, self.proxy.admission(worker.name).depth, self.metrics)
            for worker in self.supervisor.snapshot()
        ]

    async def order(self, request: web.Request) -> web.Response:
        """POST /api/workers/{name}/restart|start|stop: takes the order; status shows how it goes.

        It is for the profile's worker, and so for the profiles in `shares_with` as well.
        """
        event = ORDERS.get(request.match_info["order"])
        if event is None:
            raise RequestError(404, "the orders are restart, start and stop", code="unknown_order")
        profile = self.router().resolve(request.match_info["name"])
        self.supervisor.worker(profile.name).post(event)
        return web.json_response(
            {
                "name": profile.name,
                "order": request.match_info["order"],
                "shares_with": self.supervisor.shares_with(profile.name),
            },
            status=202,
        )

    async def reload_profiles(self, request: web.Request) -> web.Response:
        """POST /api/reload: all profiles or none; answers with the names of what changed."""
        return web.json_response({"changed": self.reload()})

    async def log(self, request: web.Request) -> web.StreamResponse:
        """GET /api/logs/{name}?follow=1&lines=N: the newest lines as text; with `follow`, those to come."""
        profile = self.router().resolve(request.match_info["name"])
        source = self.logs(self.supervisor.worker(profile.name).name)
        newest = source.tail(max(1, _lines(request)))
        if request.query.get("follow", "0") in {"0", ""}:
            return web.Response(text="".join(_shown(line) for line in newest))
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        await response.write("".join(_shown(line) for line in newest).encode())
        async for line in source.follow(newest[-1].seq if newest else -1):
            await response.write(_shown(line).encode())
        return response


def _lines(request: web.Request) -> int:
    text = request.query.get("lines", str(LINES))
    if not text.isdecimal() or len(text) > 6:
        raise RequestError(400, "lines must be a number", param="lines")
    return int(text)


def _shown(line: LogLine) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(line.time))} {line.text}\n"
