"""All paths that the daemon answers, by the parts that answer them, and the listener for them."""

from __future__ import annotations

from collections.abc import Callable

from draftd.settings import Settings
from draftd.telemetry.history import History
from draftd.telemetry.journal import Journal
from draftd.telemetry.output import Sink
from draftd.tls_renewal import ServedCertificate
from draftd.web import dashboard
from draftd.web.api import Api
from draftd.web.benches import Benches
from draftd.web.captured import Captured
from draftd.web.listener import Listener, make_listener
from draftd.web.live_feed import LiveFeed
from draftd.web.logs import Logs
from draftd.web.own_load import OwnLoad
from draftd.web.readable import Readable
from draftd.web.status_report import StatusReport


def make_routed_listener(
    settings: Settings,
    *,
    report: StatusReport,
    journal: Journal,
    history: History,
    sink: Sink,
    load: OwnLoad,
    benches: Benches,
    feed: LiveFeed,
    reload: Callable[[], list[str]],
    changed: Callable[[], None],
    tls: ServedCertificate | None,
) -> Listener:
    """A listener that is not open yet. `reload` reads the profiles again; `changed` is called when readers of the
    live feed should hear of something; with `tls` it speaks https.
    """
    router, supervisor = report.router, report.supervisor
    api = Api(
        report=report,
        router=router,
        supervisor=supervisor,
        metrics=report.metrics,
        journal=journal,
        history=history,
        reload=reload,
    )
    logs = Logs(router=router, supervisor=supervisor, sink=sink, before=journal.tell)
    readable = Readable(router, settings.prompt_dirs(), report.reload_problem)
    captured = Captured(journal.contents, changed)
    parts = (api, load, logs, readable, captured, benches, feed, dashboard)
    routes = [route for part in parts for route in part.routes()]
    return make_listener(settings, report.proxy, report.metrics, journal, routes, tls)
