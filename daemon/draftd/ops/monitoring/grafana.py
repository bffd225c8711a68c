"""The Grafana dashboard: panels over the daemon's metrics, as the JSON that Grafana's "Import" takes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PAYS = 0.6  # acceptance from which drafting usually pays
WIDTH, HEIGHT = 12, 8  # of a panel; Grafana's grid is 24 wide
SCHEMA = 38  # of Grafana 10; later ones migrate it by themselves

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN = 'profile=~"$profile"'
STATES = {  # state -> the number that stands for it in the timeline, and its colour
    "stopped": (0, "#808080"),
    "starting": (1, "blue"),
    "ready": (2, "green"),
    "stopping": (3, "purple"),
    "backoff": (4, "orange"),
    "failed": (5, "red"),
}


@dataclass(frozen=True, slots=True)
class Panel:
    """`queries` are (PromQL, legend); `options` are merged into the defaults of the panel's fields."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    options: dict[str, Any] = field(default_factory=dict)


def dashboard() -> dict[str, Any]:
    """The whole dashboard; its data source and the profiles to show are variables."""
    return {
        "uid": "draftd",
        "title": "draftd: speculative decoding",
        "tags": ["draftd"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source(), _profiles()]},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _profiles() -> dict[str, Any]:
    query = "label_values(draftd_worker_state, profile)"
    return {
        "name": "profile",
        "label": "Profile",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "profiles"},
        "definition": query,
        "refresh": 2,  # with the time range: profiles come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, 24 // WIDTH)
    targets = [
        {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0} | panel.options, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
    }


def _rate(metric: str, by: str = "profile") -> str:
    return f"sum by ({by}) (rate(draftd_{metric}{{{CHOSEN}}}[$__rate_interval]))"


def _quantiles(metric: str, *shares: float) -> tuple[tuple[str, str], ...]:
    buckets = _rate(f"{metric}_bucket", "profile, le")
    return tuple(
        (f"histogram_quantile({share}, {buckets})", f"{{{{profile}}}} p{share * 100:.0f}") for share in shares
    )


def _state() -> str:
    each = (
        f'{number} * draftd_worker_state{{{CHOSEN}, state="{name}"}}' for name, (number, _) in STATES.items()
    )
    return f"sum by (profile) ({' or '.join(each)})"


_FROM_60_PERCENT = {
    "max": 1,
    "custom": {"thresholdsStyle": {"mode": "line"}},
    "thresholds": {
        "mode": "absolute",
        "steps": [{"color": "orange", "value": None}, {"color": "green", "value": PAYS}],
    },
}
_STATE_WORDS = {
    "mappings": [
        {
            "type": "value",
            "options": {str(number): {"text": name, "color": color, "index": number}},
        }
        for name, (number, color) in STATES.items()
    ]
}
_STACKED = {"custom": {"stacking": {"mode": "normal"}, "fillOpacity": 30}}

PANELS = (
    Panel(
        "Acceptance",
        "Draft tokens accepted ÷ proposed. From about 60 % on drafting usually pays.",
        "percentunit",
        (
            (
                f"{_rate('draft_tokens_accepted_total')} / {_rate('draft_tokens_proposed_total')}",
                "{{profile}}",
            ),
        ),
        options=_FROM_60_PERCENT,
    ),
    Panel(
        "Tokens per round",
        "What one pass of the target model yields: the accepted draft tokens and its own.",
        "short",
        ((f"1 + {_rate('draft_tokens_accepted_total')} / {_rate('draft_rounds_total')}", "{{profile}}"),),
    ),
    Panel(
        "Draft length",
        "Mean of the tokens proposed in a round.",
        "short",
        ((f"{_rate('draft_length_sum')} / {_rate('draft_length_count')}", "{{profile}}"),),
    ),
    Panel(
        "Acceptance by position",
        "Accepted ÷ proposed, by the position in the draft: what a longer draft would add.",
        "percentunit",
        (
            (
                f"{_rate('draft_accepted_by_position_total', 'position')}"
                f" / {_rate('draft_proposed_by_position_total', 'position')}",
                "position {{position}}",
            ),
        ),
    ),
    Panel(
        "Estimated speed-up",
        "Against no drafting, from what the engine measured. Under 1 drafting makes it slower.",
        "short",
        ((f"max by (profile) (draftd_draft_speedup_estimate{{{CHOSEN}}})", "{{profile}}"),),
    ),
    Panel(
        "Generation speed",
        "Tokens per second of one request after its first token.",
        "short",
        _quantiles("tokens_per_second", 0.5, 0.1),
    ),
    Panel(
        "Throughput",
        "Tokens generated per second by all requests together.",
        "short",
        ((_rate("completion_tokens_total"), "{{profile}}"),),
        options=_STACKED,
    ),
    Panel(
        "Time to first token",
        "From the request's arrival, the wait in the queue included.",
        "s",
        _quantiles("time_to_first_token_seconds", 0.5, 0.9, 0.99),
    ),
    Panel(
        "Requests by status",
        "Per second. 499: the client left; 429: the queue was full; 503: no worker was ready.",
        "reqps",
        ((_rate("requests_total", "status"), "{{status}}"),),
        options=_STACKED,
    ),
    Panel(
        "Queue",
        "Requests that wait for a worker.",
        "short",
        ((f"sum by (profile) (draftd_queue_depth{{{CHOSEN}}})", "{{profile}}"),),
    ),
    Panel("Queue wait", "Time in the daemon's queue.", "s", _quantiles("queue_wait_seconds", 0.5, 0.9)),
    Panel(
        "Worker state",
        "What each worker was doing.",
        "short",
        ((_state(), "{{profile}}"),),
        kind="state-timeline",
        options=_STATE_WORDS,
    ),
    Panel(
        "Restarts",
        "Restarts of workers, by reason.",
        "short",
        (
            (
                f"sum by (profile, reason) (increase(draftd_worker_restarts_total{{{CHOSEN}}}[$__rate_interval]))",
                "{{profile}}: {{reason}}",
            ),
        ),
    ),
    Panel(
        "Memory",
        "Memory of each worker's processes.",
        "bytes",
        ((f"sum by (profile) (draftd_worker_memory_bytes{{{CHOSEN}}})", "{{profile}}"),),
        options=_STACKED,
    ),
    Panel(
        "Start time",
        "How long the last start took until the worker was ready.",
        "s",
        ((f"max by (profile) (draftd_worker_start_seconds{{{CHOSEN}}})", "{{profile}}"),),
    ),
)
