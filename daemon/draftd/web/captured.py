"""The switch for the contents of requests, and what was captured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aiohttp import web

from draftd.errors import RequestError
from draftd.telemetry.contents import Contents
from draftd.web.aiohttp_app import json_response

log = structlog.get_logger("web")
SWITCHES = {"on": True, "off": False}


@dataclass(frozen=True, slots=True)
class Captured:
    """The handlers. `changed` is called when the switch is turned."""

    contents: Contents
    changed: Callable[[], None]

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers."""
        return [
            web.post("/api/capture/{switch}", self.switch),
            web.get("/api/requests/{id}/contents", self.show),
        ]

    async def switch(self, request: web.Request) -> web.Response:
        """POST /api/capture/on|off: whether the contents of requests are kept; off forgets what was kept."""
        on = SWITCHES.get(request.match_info["switch"])
        if on is None:
            raise RequestError(404, "capture is switched on or off", code="unknown_order")
        if on != self.contents.on:
            log.warning("contents of requests are captured in memory" if on else "captured contents are gone")
        self.contents.switch(on=on)
        self.changed()
        return json_response({"capture": on})

    async def show(self, request: web.Request) -> web.Response:
        """GET /api/requests/{id}/contents: what a client sent and got, if that was captured."""
        name = request.match_info["id"]
        content = self.contents.of(name)
        if content is None:
            why = "they are no longer kept" if self.contents.on else "capture is off"
            raise RequestError(404, f"there are no contents of this request: {why}", code="not_captured")
        return json_response({"id": name, "request": content.request, "answer": content.answer})
