"""What watches draftd from outside: a Prometheus configuration with alert rules, and a dashboard for Grafana."""

from __future__ import annotations

from importlib.resources import files


def dashboard() -> str:
    """The dashboard as the JSON that Grafana's "Import" takes.

    Its data source and the profiles to show are variables. In the timeline of states each state has a number.
    """
    return files(__name__).joinpath("dashboard.json").read_text("utf-8")
