"""The Grafana dashboard: complete, importable, and about metrics that there are."""

from __future__ import annotations

import json
import re
from typing import Any

from typer.testing import CliRunner

from draftd.cli import app
from draftd.ops.monitoring import dashboard
from draftd.telemetry.metrics import Metrics
from draftd.telemetry.records import DraftAcceptance, GenerationReport
from draftd.telemetry.worker_samples import STATES, WorkerSample
from tests.telemetry.scraping import scrape

BODY: dict[str, Any] = json.loads(dashboard())
PANELS: list[dict[str, Any]] = BODY["panels"]


def expressions() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_the_command_prints_the_dashboard_as_json() -> None:
    result = CliRunner().invoke(app, ["grafana"])
    assert result.exit_code == 0
    assert result.stdout == dashboard()


def test_every_metric_and_label_of_the_dashboard_exists() -> None:
    metrics = Metrics("1", "1")
    metrics.declare("a")
    drafters = {"lookup": DraftAcceptance(1, 2)}
    metrics.record(
        "a", GenerationReport(1, 2, 1, 0, 2, (1, 0), (1, 1), tokens=2, speedup=1.1, drafters=drafters)
    )
    metrics.bind(lambda: [WorkerSample("a", "ready", 1, 0, 1.0, accounting=True)])
    labels: dict[str, set[str]] = {}
    for name, pairs in scrape(metrics):
        labels.setdefault(name, set()).update(key for key, _ in pairs)
    used = {name for text in expressions() for name in re.findall(r"draftd_\w+", text)}
    assert len(used) > 10
    assert used <= set(labels)
    for text in expressions():
        named = set(re.findall(r"\bby \(([^)]*)\)", text)[0].split(", "))
        known = set.union(*(labels[name] for name in re.findall(r"draftd_\w+", text)))
        assert named <= known, text


def test_every_state_has_its_number_in_the_timeline() -> None:
    panel = next(panel for panel in PANELS if panel["type"] == "state-timeline")
    mappings = panel["fieldConfig"]["defaults"]["mappings"]
    shown = {number: words["text"] for each in mappings for number, words in each["options"].items()}
    asked = re.findall(
        r'(\d) \* draftd_worker_state\{profile=~"\$profile", state="(\w+)"\}', panel["targets"][0]["expr"]
    )
    assert dict(asked) == shown
    assert sorted(shown.values()) == sorted(STATES)


def test_what_was_accepted_is_shown_for_each_drafter() -> None:
    [panel] = [panel for panel in PANELS if panel["title"] == "Accepted by drafter"]
    [target] = panel["targets"]
    assert target["expr"].startswith("sum by (drafter) (rate(draftd_draft_accepted_by_drafter_total")
    assert target["legendFormat"] == "{{drafter}}"


def test_it_can_be_imported_anywhere() -> None:
    assert "id" not in BODY  # Grafana gives one
    variables = {variable["name"]: variable for variable in BODY["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    sources = [target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]]
    assert {*sources, variables["profile"]["datasource"]["uid"]} == {"${datasource}"}
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS]
    assert len({panel["id"] for panel in PANELS}) == len(set(places)) == len(PANELS)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)
    assert all('profile=~"$profile"' in text for text in expressions())
