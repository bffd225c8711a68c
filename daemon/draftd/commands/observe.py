"""`draftd prometheus` and `draftd grafana`: what these two need to watch the daemon."""

from __future__ import annotations

from typing import Annotated

import typer

from draftd.commands.shared import StateDir, settings_where_it_runs
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
    out.data(config(_address(settings), with_key=settings.api_key is not None), end="")


def _address(settings: Settings) -> str:
    """The daemon's address: its own word if it runs, else where the settings would put it."""
    try:
        return find_daemon(settings.state_dir).url
    except NotRunningError:
        return settings.url
