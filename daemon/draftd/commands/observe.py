"""Verbs for who watches with tools of their own: what to give to Prometheus and to Grafana."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from draftd.commands.shared import StateDir
from draftd.errors import NotRunningError
from draftd.instance import find as find_daemon
from draftd.ops.monitoring import grafana as grafana_dashboard
from draftd.ops.monitoring import prometheus as prometheus_files
from draftd.settings import Settings, load_settings


def grafana() -> None:
    """Print a Grafana dashboard: acceptance, speed, requests, workers.

    Example: draftd grafana > draftd.json, then Dashboards, New, Import in Grafana
    """
    typer.echo(json.dumps(grafana_dashboard.dashboard(), indent=2))


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
        typer.echo(prometheus_files.RULES, nl=False)
        return
    settings = load_settings(state_dir=state_dir)
    typer.echo(prometheus_files.config(_address(settings), with_key=settings.api_key is not None), nl=False)


def _address(settings: Settings) -> str:
    """Where the daemon is: as it says itself if it runs, else as the settings say that it will be."""
    try:
        return find_daemon(settings.state_dir).url
    except NotRunningError:
        return settings.url
