"""What the daemon answers by itself: models, status, requests, orders to workers, metrics, health."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from draftd.errors import RequestError
from draftd.peers import HOPS_HEADER
from draftd.peers.peer_models import PeerModel
from draftd.profiles import Profile
from draftd.telemetry.history import History
from draftd.telemetry.journal import Journal
from draftd.telemetry.metrics import Metrics
from draftd.telemetry.request_record import as_json
from draftd.web import model_list
from draftd.web.addresses import MODELS
from draftd.web.aiohttp_app import EXCHANGE, json_response
from draftd.web.model_list import Listed
from draftd.web.own_load import context_of
from draftd.web.pipeline import ANTHROPIC_VERSION
from draftd.web.router import Router
from draftd.web.status_report import StatusReport
from draftd.workers.events import Event, Restart, Start, Stop
from draftd.workers.supervisor import Supervisor

ORDERS: Mapping[str, Event] = {"restart": Restart("operator"), "start": Start(), "stop": Stop("operator")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The handlers, and the parts of the daemon that they ask. `reload` returns the names of what changed."""

    report: StatusReport
    router: Router
    supervisor: Supervisor
    metrics: Metrics
    journal: Journal
    history: History
    reload: Callable[[], list[str]]

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
            web.get("/api/requests", self.requests),
            web.get("/api/history", self.past_hour),
            web.post("/api/requests/{id}/cancel", self.cancel),
        ]

    async def models(self, request: web.Request) -> web.Response:
        """GET /v1/models; in Anthropic's form, with the aliases, for a client that sends `anthropic-version`."""
        made = model_list.messages_models if _is_anthropic(request) else model_list.models
        table = self.router.alone if HOPS_HEADER in request.headers else self.router.table
        models: list[Profile | PeerModel] = [*table.profiles.profiles.values(), *table.elsewhere.values()]
        return json_response(made([listed(model) for model in models], self.report.started))

    async def model(self, request: web.Request) -> web.Response:
        """GET /v1/models/{id}."""
        name = request[EXCHANGE].head.path.removeprefix(f"{MODELS}/")
        made = model_list.messages_model if _is_anthropic(request) else model_list.model
        table = self.router.table
        found = table.only_elsewhere(name) or table.resolve(name)
        return json_response(made(listed(found), self.report.started, name))

    async def prometheus(self, request: web.Request) -> web.Response:
        """GET /metrics."""
        body, kind = self.metrics.render(request.headers.get("Accept"))
        return web.Response(body=body, headers={"Content-Type": kind})

    async def healthz(self, request: web.Request) -> web.Response:
        """GET /healthz: the daemon is alive."""
        return json_response({"status": "ok"})

    async def readyz(self, request: web.Request) -> web.Response:
        """GET /readyz: 503 until every worker that starts by itself is ready."""
        profiles = self.router.table.profiles.profiles
        waiting = {
            worker.name: worker.state
            for worker in self.supervisor.snapshot()
            if worker.state != "ready" and profiles[worker.name].autostart
        }
        body = {"status": "waiting" if waiting else "ok", "waiting": waiting}
        return json_response(body, status=503 if waiting else 200)

    async def status(self, request: web.Request) -> web.Response:
        """GET /api/status."""
        return json_response(self.report.status())

    async def order(self, request: web.Request) -> web.Response:
        """POST /api/workers/{name}/restart|start|stop: takes the order; the status shows what becomes of it.

        It goes to the profile's worker, and so concerns the profiles in `shares_with` as well.
        """
        event = ORDERS.get(request.match_info["order"])
        if event is None:
            raise RequestError(404, "the orders are restart, start and stop", code="unknown_order")
        profile = self.router.table.resolve(request.match_info["name"])
        self.supervisor.worker(profile.name).post(event)
        shares_with = self.supervisor.shares_with(profile.name)
        body = {"name": profile.name, "order": request.match_info["order"], "shares_with": shares_with}
        return json_response(body, status=202)

    async def reload_profiles(self, request: web.Request) -> web.Response:
        """POST /api/reload: takes all profiles or none; answers with the names of those that changed."""
        return json_response({"changed": self.reload()})

    async def requests(self, request: web.Request) -> web.Response:
        """GET /api/requests: the requests that are open and the last 100 that have ended, oldest first."""
        return json_response({"requests": [as_json(record) for record in self.journal.since(0)]})

    async def past_hour(self, request: web.Request) -> web.Response:
        """GET /api/history: speed, acceptance, queue and memory of the last hour, in steps of ten seconds."""
        return json_response(self.history.as_json())

    async def cancel(self, request: web.Request) -> web.Response:
        """POST /api/requests/{id}/cancel: ends an open request; its client is told with an error."""
        name = request.match_info["id"]
        if not self.journal.cancel(name):
            raise RequestError(404, "no such request is open", code="request_not_found")
        return json_response({"id": name, "cancelled": True}, status=202)


def listed(model: Profile | PeerModel) -> Listed:
    """A profile, or a model that only peers have, as a model of the list."""
    if isinstance(model, PeerModel):
        return Listed(model.name, model.aliases, model.context, model.peer)
    return Listed(model.name, model.aliases, context_of(model))


def _is_anthropic(request: web.Request) -> bool:
    return ANTHROPIC_VERSION in request.headers
