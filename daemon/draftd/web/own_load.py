"""How busy this machine is: for its own choice of a place, and for daemons that have it as a peer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import msgspec
from aiohttp import web

from draftd import __version__
from draftd.hub import read_model
from draftd.peers import LOAD_PATH
from draftd.peers.load_report import LoadedModel, LoadReport
from draftd.profiles import Profile
from draftd.web.proxy import Proxy
from draftd.web.router import Router
from draftd.workers.supervisor import Supervisor

KNOWN_FOR = 60.0  # seconds that a model's context is not read again


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLoad:
    """Asks the parts of the daemon. `id` identifies this start, `keepalive` is the longest silence of its streams
    in seconds.
    """

    router: Router
    supervisor: Supervisor
    proxy: Proxy
    id: str
    keepalive: float

    def routes(self) -> list[web.RouteDef]:
        """The path and its handler."""
        return [web.get(LOAD_PATH, self.load)]

    async def load(self, request: web.Request) -> web.Response:
        """GET /api/load: for peers, how busy each model of this machine is."""
        return web.Response(
            body=msgspec.json.encode(self.report()), headers={"Content-Type": "application/json"}
        )

    def report(self) -> LoadReport:
        """All models of this machine, without those of its peers."""
        names = self.router.alone.profiles.profiles
        models = tuple(self._of(name, context_of(profile)) for name, profile in names.items())
        return LoadReport(id=self.id, version=__version__, keepalive=self.keepalive, models=models)

    def of(self, model: str) -> LoadedModel | None:
        """What this machine has to do for a model; None if it takes no request for it now."""
        if model not in self.router.alone.profiles.profiles:
            return None
        load = self._of(model)
        return load if load.serves else None

    def _of(self, name: str, context: int | None = None) -> LoadedModel:
        profile = self.router.alone.profiles.profiles[name]
        worker, admission = self.supervisor.worker(name), self.proxy.admission(name)
        return LoadedModel(
            name=name,
            aliases=profile.aliases,
            context=context,
            state=worker.state.label,
            slots=profile.concurrency,
            open=admission.active + admission.depth,
            takes=admission.takes,
            start=worker.start_seconds,
        )


def context_of(profile: Profile) -> int | None:
    """The context in tokens. How much of the model's a `command` serves is not known here."""
    return None if profile.command else _context_in(profile.model, int(time.monotonic() // KNOWN_FOR))


@lru_cache(maxsize=64)
def _context_in(model: str, _: int) -> int | None:
    """Peers ask each second, and a model's folder may be on a disk that sleeps."""
    return read_model(model).config.context_length
