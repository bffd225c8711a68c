"""What a scrape of Metrics gives, as a table that tests can ask."""

from prometheus_client.parser import text_string_to_metric_families

from draftd.telemetry.metrics import Metrics

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(metrics: Metrics) -> Series:
    body, _ = metrics.render()
    series: Series = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in series, f"{key} is given twice"
            series[key] = sample.value
    return series


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return scrape(metrics).get((f"draftd_{name}", frozenset(labels.items())))
