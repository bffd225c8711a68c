"""The pages on the API and on metrics name exactly what a running daemon has."""

from __future__ import annotations

import json
import re

from prometheus_client.parser import text_string_to_metric_families

from draftd.protocol import CONTEXT_LENGTH_EXCEEDED
from tests.docs.demo import Demo
from tests.docs.pages import ROOT

API = (ROOT / "docs/api.md").read_text("utf-8")
METRICS = (ROOT / "docs/metrics.md").read_text("utf-8")
OF_THE_FORMAT = {"le"}  # the label of a histogram's buckets
ASK = (
    "curl -sS http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' "
    """-d '{"messages": [{"role": "user", "content": "What is a draft model?"}]}'"""
)


def test_the_endpoints_are_those_of_the_daemon(demo: Demo) -> None:
    paths = json.loads(demo.get("/openapi.json"))["paths"]
    there = {
        (method.upper(), path)
        for path, operations in paths.items()
        if not path.startswith("/dashboard/")
        for method in operations
    }
    assert set(re.findall(r"^\| `(GET|POST) (\S+)` \|", API, re.MULTILINE)) == there


def test_the_metrics_are_those_of_the_daemon(demo: Demo) -> None:
    for _ in range(2):  # what drafting costs is known after the first answer
        assert demo.call(["bash", "-c", demo.addressed(ASK)]).returncode == 0
    families = {family.name: family for family in text_string_to_metric_families(demo.get("/metrics"))}
    there = {
        name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - OF_THE_FORMAT,
        )
        for name, family in families.items()
    }
    rows = re.findall(r"^\| `(draftd_\w+)` \| (\w+) \| (.*?) \|", METRICS, re.MULTILINE)
    assert {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == there


def test_the_headers_are_those_of_an_answer(demo: Demo) -> None:
    answered = demo.call(["bash", "-c", demo.addressed(ASK.replace("-sS", "-sSi"))]).stdout.partition("\n\n")[
        0
    ]
    there = set(re.findall(r"^(x-[\w-]+):", answered.replace("\r", ""), re.MULTILINE))
    said = set(re.findall(r"^\| `(x-[\w-]+)` \|", API, re.MULTILINE))
    assert said == there | {"x-should-retry"}  # which only an error has


def test_the_codes_of_errors_are_those_in_the_source() -> None:
    sources = [path.read_text("utf-8") for path in (ROOT / "daemon/draftd").rglob("*.py")]
    there = {
        code for text in sources for code in re.findall(r'\bcode(?:: str(?: \| None)?)? ?= ?"(\w+)"', text)
    }
    there |= {CONTEXT_LENGTH_EXCEEDED}  # which the engine gives
    rows = re.findall(r"^\| [\d, ]+ \|([^|]*)\|", API, re.MULTILINE)
    assert {code for row in rows for code in re.findall(r"`(\w+)`", row)} == there
