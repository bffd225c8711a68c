"""`draftd prometheus` and `draftd grafana`: what these two need to watch the daemon."""

from __future__ import annotations

from typing import Annotated

import typer

from draftd.commands.shared import StateDir, promised_address, settings_where_it_runs
from draftd.console import out
from draftd.errors import NotRunningError
from draftd.instance import find_daemon
from draftd.ops.monitoring import dashboard
from draftd.ops.monitoring.prometheus import RULES, config
from draftd.settings import Settings


def grafana() -> None:
    """Print a Grafana dashboard: acceptance, speed, requests, workers.

    Example: draftd grafana > draftd.json; in Grafana: Dashboards, New, Import
    """
    out.data(dashboard(), end="")


def prometheus(
    rules: Annotated[
        bool, typer.Option("--rules", help="The alert rules instead of the scrape job.")
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """Print a Prometheus configuration that scrapes this daemon, or two alert rules for it.

    Example: draftd prometheus > prometheus.yml; draftd prometheus --rules > draftd-rules.yml
    """
    if rules:
        out.data(RULES, end="")
        return
    settings = settings_where_it_runs(state_dir=state_dir)
    url, to_trust = _address(settings)
    out.data(config(url, with_key=settings.api_key is not None, to_trust=to_trust), end="")


def _address(settings: Settings) -> tuple[str, str]:
    """The daemon's address, and the certificate to trust there: its own word if it runs, else what the settings
    promise.
    """
    try:
        running = find_daemon(settings.state_dir)
        return running.address, running.to_trust
    except NotRunningError:
        return promised_address(settings)
