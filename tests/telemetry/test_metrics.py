"""Metrics: the names, when a series exists, what is counted, and that clients cannot make series."""

import math
import shutil
import subprocess
from typing import cast

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from draftd.protocol import OUTCOMES, CacheSize, Costs
from draftd.telemetry.instruments import UNKNOWN
from draftd.telemetry.metrics import CLIENT_LEFT, Acceptance, Metrics
from draftd.telemetry.prompt_caches import StoredPrompt
from draftd.telemetry.records import DraftAcceptance, EngineStarted, GenerationReport, PromptProgress, Record
from draftd.telemetry.worker_samples import STATES, WorkerSample
from tests.telemetry.scraping import scrape, value

REPORT = GenerationReport(
    rounds=12,
    proposed=58,
    accepted=41,
    truncated_rounds=1,
    accepted_by_position=(11, 10, 8, 7, 5),
    proposed_by_position=(12, 12, 12, 11, 11),
    tokens=53,
    rule="paper",
    costs=Costs(0.02, 0.004, 0.03),
    speedup=1.5,
    drafters={"lookup": DraftAcceptance(1, 8), "model": DraftAcceptance(40, 50)},
)


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics("0.1.0", "0.32.2")
    made.declare("fast")
    return made


def busy() -> Metrics:
    """Metrics in which every series has a value."""
    metrics = Metrics("0.1.0", "0.32.2")
    for profile in ("fast", "balanced"):
        metrics.declare(profile)
        for record in (DraftAcceptance(4, 5), REPORT, EngineStarted(True)):
            metrics.record(profile, record)
        metrics.request(profile, "chat.completions", 200, 1.5)
        metrics.first_token(profile, 0.2)
        metrics.generation(profile, prompt_tokens=10, completion_tokens=21, seconds=2, cached_tokens=5)
        metrics.record(profile, StoredPrompt("stored"))
        metrics.queue_wait(profile, 0.1)
        metrics.restarted(profile, "exit")
        metrics.log_write_error(profile)
    metrics.bind(
        lambda: [
            WorkerSample("fast", "ready", 5, 2, 1.5, accounting=True, prompt_cache=CacheSize(2, 70, None)),
            WorkerSample("balanced", "failed", 5, 0, 9, accounting=False),
        ],
        lambda: 77,
    )
    return metrics


COUNTERS = (
    *(
        "draftd_draft_tokens_proposed_total",
        "draftd_draft_tokens_accepted_total",
        "draftd_draft_rounds_total",
    ),
    *("draftd_prompt_tokens_total", "draftd_completion_tokens_total", "draftd_log_write_errors_total"),
    "draftd_prompt_tokens_cached_total",
)
NAMES = {
    **{name: ("counter", {"profile"}) for name in COUNTERS},
    "draftd_requests_total": ("counter", {"profile", "endpoint", "status"}),
    "draftd_worker_restarts_total": ("counter", {"profile", "reason"}),
    "draftd_request_duration_seconds": ("histogram", {"profile", "endpoint"}),
    "draftd_time_to_first_token_seconds": ("histogram", {"profile"}),
    "draftd_tokens_per_second": ("histogram", {"profile"}),
    "draftd_queue_wait_seconds": ("histogram", {"profile"}),
    "draftd_draft_acceptance_ratio": ("gauge", {"profile"}),
    "draftd_draft_accounting": ("gauge", {"profile"}),
    "draftd_draft_refused": ("gauge", {"profile"}),
    "draftd_draft_proposed_by_drafter_total": ("counter", {"profile", "drafter"}),
    "draftd_draft_accepted_by_drafter_total": ("counter", {"profile", "drafter"}),
    "draftd_draft_accepted_by_position_total": ("counter", {"profile", "position"}),
    "draftd_draft_proposed_by_position_total": ("counter", {"profile", "position"}),
    "draftd_draft_length": ("histogram", {"profile"}),
    "draftd_draft_speedup_estimate": ("gauge", {"profile"}),
    "draftd_target_passes_total": ("counter", {"profile"}),
    "draftd_target_pass_rows_total": ("counter", {"profile"}),
    "draftd_queue_depth": ("gauge", {"profile"}),
    "draftd_worker_state": ("gauge", {"profile", "state"}),
    "draftd_worker_memory_bytes": ("gauge", {"profile"}),
    "draftd_worker_start_seconds": ("gauge", {"profile"}),
    "draftd_prompt_cache_hit_ratio": ("gauge", {"profile"}),
    "draftd_prompt_cache_bytes": ("gauge", {"profile"}),
    "draftd_prompt_cache_entries": ("gauge", {"profile"}),
    "draftd_stored_prompts_total": ("counter", {"profile", "outcome"}),
    "draftd_stored_prompt_files": ("gauge", set()),
    "draftd_stored_prompt_bytes": ("gauge", set()),
    "draftd_warm_spare_memory_bytes": ("gauge", set()),
    "draftd_memory_pressure": ("gauge", set()),
    "draftd_build_info": ("gauge", {"version", "python", "mlx_lm"}),
}


def test_names_types_and_labels_are_the_interface() -> None:
    body, content_type = busy().render()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        # The parser strips what Prometheus calls the metric by.
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = (family.type, set().union(*(sample.labels for sample in family.samples)) - {"le"})
    assert found == NAMES


def test_promtool_has_nothing_to_say() -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool is missing (Debian package prometheus)")
    for metrics in (busy(), Metrics("0.1.0", "")):
        command = [promtool, "check", "metrics"]
        said = subprocess.run(command, input=metrics.render()[0], capture_output=True, check=False)
        assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (None, False),
        ("*/*", False),
        ("text/plain;version=1.0.0;q=0.5", False),
        ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.3", True),
        ("Application/OpenMetrics-Text", True),
        ("application/openmetrics-text;version=nonsense", True),
    ],
)
def test_openmetrics_only_if_asked_for(accept: str | None, openmetrics: bool) -> None:
    body, content_type = busy().render(accept)
    assert body.endswith(b"# EOF\n") is openmetrics
    assert content_type.startswith(
        "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain"
    )
    if openmetrics:
        families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
        assert len(list(families)) == len(NAMES)


def test_counters_of_a_declared_profile_are_at_zero(metrics: Metrics) -> None:
    series = scrape(metrics)
    for name in COUNTERS:
        assert series[name, frozenset({("profile", "fast")})] == 0
    assert value(metrics, "requests_total", profile="fast", endpoint="chat.completions", status="200") == 0
    assert value(metrics, "worker_restarts_total", profile="fast", reason="exit") == 0
    assert value(metrics, "time_to_first_token_seconds_count", profile="fast") == 0


def test_declaring_again_keeps_the_counts(metrics: Metrics) -> None:
    metrics.record("fast", DraftAcceptance(4, 5))
    metrics.declare("fast")
    assert metrics.acceptance("fast") == Acceptance(5, 4, 0.8)
    assert value(metrics, "draft_tokens_accepted_total", profile="fast") == 4


def test_retiring_removes_every_series_and_only_of_that_profile() -> None:
    metrics = busy()
    metrics.bind(lambda: [])
    before = scrape(metrics)
    metrics.retire("fast")
    metrics.retire("fast")
    after = scrape(metrics)
    assert after == {key: kept for key, kept in before.items() if ("profile", "fast") not in key[1]}
    metrics.declare("fast")
    assert metrics.acceptance("fast") == Acceptance(0, 0, None)


def test_unknown_is_no_profile(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match=UNKNOWN):
        metrics.declare(UNKNOWN)


def test_a_request_is_counted_from_its_report_or_from_its_line(metrics: Metrics) -> None:
    metrics.record("fast", REPORT)  # by our engine
    metrics.record("fast", DraftAcceptance(4, 5))  # by another server
    metrics.record("fast", PromptProgress(1, 2))
    assert value(metrics, "draft_tokens_proposed_total", profile="fast") == 63
    assert value(metrics, "draft_tokens_accepted_total", profile="fast") == 45
    assert value(metrics, "draft_rounds_total", profile="fast") == 12
    assert metrics.acceptance("fast") == Acceptance(63, 45, 45 / 63)


def test_the_ratio_is_of_the_last_50_requests_that_drafted(metrics: Metrics) -> None:
    assert value(metrics, "draft_acceptance_ratio", profile="fast") is None
    metrics.record("fast", DraftAcceptance(0, 0))
    assert value(metrics, "draft_acceptance_ratio", profile="fast") is None
    metrics.record("fast", DraftAcceptance(0, 1000))
    for _ in range(49):
        metrics.record("fast", DraftAcceptance(3, 4))
    metrics.record("fast", DraftAcceptance(0, 0))
    assert value(metrics, "draft_acceptance_ratio", profile="fast") == pytest.approx(147 / 1196)
    metrics.record("fast", DraftAcceptance(3, 4))  # the 51st pushes the first out
    assert value(metrics, "draft_acceptance_ratio", profile="fast") == 0.75
    assert metrics.acceptance("fast") == Acceptance(1200, 150, 0.75)


@pytest.mark.parametrize(
    ("profile", "endpoint", "status", "labels"),
    [
        ("fast", "chat.completions", 200, ("fast", "chat.completions", "200")),
        ("fast", "completions", CLIENT_LEFT, ("fast", "completions", "499")),
        (None, "models", 200, (UNKNOWN, "models", "200")),
        ("gpt-9", "chat.completions", 404, (UNKNOWN, "chat.completions", "404")),
        (UNKNOWN, "chat.completions", 404, (UNKNOWN, "chat.completions", "404")),
        ("fast", "/../../etc", 404, ("fast", "other", "404")),
        ("fast", "completions", 1000, ("fast", "completions", "other")),
    ],
)
def test_requests_are_labelled_from_fixed_sets(
    metrics: Metrics, profile: str | None, endpoint: str, status: int, labels: tuple[str, str, str]
) -> None:
    metrics.request(profile, endpoint, status, 0.3)
    label, point, code = labels
    assert value(metrics, "requests_total", profile=label, endpoint=point, status=code) == 1
    assert value(metrics, "request_duration_seconds_sum", profile=label, endpoint=point) == 0.3
    assert metrics.requests("fast") == (label == "fast")


def test_10000_unknown_names_and_paths_make_no_series(metrics: Metrics) -> None:
    before = scrape(metrics).keys()
    numbers: list[Record] = [DraftAcceptance(1, 1), REPORT, EngineStarted(True)]
    for number in range(10_000):
        name = f"model-{number}"
        metrics.request(name, "chat.completions", 404, 0.001)
        metrics.request(None, f"/path/{number}", 404, 0.001)
        metrics.record(name, numbers[number % 3])
        metrics.first_token(name, 1)
        metrics.generation(name, prompt_tokens=1, completion_tokens=2, seconds=1)
        metrics.queue_wait(name, 1)
        metrics.restarted(name, "exit")
        metrics.log_write_error(name)
    assert scrape(metrics).keys() == before
    assert (
        value(metrics, "requests_total", profile=UNKNOWN, endpoint="chat.completions", status="404") == 10_000
    )
    assert value(metrics, "requests_total", profile=UNKNOWN, endpoint="other", status="404") == 10_000
    assert metrics.requests("model-1") == 0
    assert metrics.acceptance("model-1") == Acceptance(0, 0, None)
    assert metrics.tokens_per_second("model-1") is None


def test_a_message_as_restart_reason_makes_no_series(metrics: Metrics) -> None:
    metrics.restarted("fast", "memory")
    for number in range(100):
        metrics.restarted("fast", f"exited with {number}")
    assert value(metrics, "worker_restarts_total", profile="fast", reason="memory") == 1
    assert value(metrics, "worker_restarts_total", profile="fast", reason="other") == 100


@pytest.mark.parametrize("said", [-1, 10**12, math.inf, math.nan, 1.5, "many", None, [1]])
def test_a_usage_block_that_lies_raises_nothing_and_spoils_no_counter(metrics: Metrics, said: object) -> None:
    metrics.generation("fast", prompt_tokens=cast(int, said), completion_tokens=cast(int, said), seconds=1)
    assert value(metrics, "prompt_tokens_total", profile="fast") == 0
    assert value(metrics, "completion_tokens_total", profile="fast") == 0
    assert metrics.tokens_per_second("fast") is None


@pytest.mark.parametrize(
    ("tokens", "seconds", "speed"),
    [(21, 2.0, 10.0), (2, 2.0, 0.5)]
    + [(tokens, 2.0, None) for tokens in (1, 0, -5)]
    + [(21, seconds, None) for seconds in (None, 0.0, -1.0, math.nan, math.inf)],
)
def test_speed_is_observed_only_if_it_was_measured(
    metrics: Metrics, tokens: int, seconds: float | None, speed: float | None
) -> None:
    metrics.generation("fast", prompt_tokens=7, completion_tokens=tokens, seconds=seconds)
    assert metrics.tokens_per_second("fast") == speed
    assert value(metrics, "tokens_per_second_count", profile="fast") == (speed is not None)
    assert value(metrics, "prompt_tokens_total", profile="fast") == 7
    assert value(metrics, "completion_tokens_total", profile="fast") == max(0, tokens)


def test_speed_in_status_is_the_median_of_the_last_50(metrics: Metrics) -> None:
    for speed in [1000] * 30 + [1] * 20 + [5] * 30:
        metrics.generation("fast", prompt_tokens=0, completion_tokens=speed + 1, seconds=1)
    assert metrics.tokens_per_second("fast") == 5
    assert value(metrics, "tokens_per_second_count", profile="fast") == 80


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_what_is_no_duration_spoils_no_sum(metrics: Metrics, seconds: float) -> None:
    metrics.first_token("fast", seconds)
    metrics.queue_wait("fast", seconds)
    metrics.request("fast", "completions", 200, seconds)
    assert not any(map(math.isnan, scrape(metrics).values()))
    assert value(metrics, "time_to_first_token_seconds_count", profile="fast") == 0
    assert value(metrics, "queue_wait_seconds_count", profile="fast") == 0
    assert value(metrics, "requests_total", profile="fast", endpoint="completions", status="200") == 1


def test_states_are_read_at_each_scrape(metrics: Metrics) -> None:
    samples: list[WorkerSample] = []
    metrics.bind(lambda: samples)
    assert value(metrics, "worker_state", profile="fast", state="ready") is None
    for state in STATES:
        samples[:] = [WorkerSample("fast", state, None, 3, None, accounting=False)]
        shown = {name: value(metrics, "worker_state", profile="fast", state=name) for name in STATES}
        assert shown == {name: name == state for name in STATES}
    assert value(metrics, "queue_depth", profile="fast") == 3
    assert value(metrics, "worker_memory_bytes", profile="fast") is None
    assert value(metrics, "worker_start_seconds", profile="fast") is None
    assert value(metrics, "draft_accounting", profile="fast") == 0
    samples[:] = [WorkerSample("fast", "ready", 1024, 0, 2.5, accounting=True)]
    assert value(metrics, "draft_accounting", profile="fast") == 1
    assert value(metrics, "worker_memory_bytes", profile="fast") == 1024
    assert value(metrics, "worker_start_seconds", profile="fast") == 2.5


def test_two_workers_of_a_profile_give_one_series(metrics: Metrics) -> None:
    metrics.bind(
        lambda: [
            WorkerSample("fast", "stopping", 1, 1, 1, accounting=True),
            WorkerSample("fast", "starting", 2, 2, 2, accounting=False),
        ]
    )
    assert value(metrics, "worker_state", profile="fast", state="starting") == 1
    assert value(metrics, "worker_state", profile="fast", state="stopping") == 0


def test_what_was_cached_of_prompts_is_counted_and_told_of_the_last_ones(metrics: Metrics) -> None:
    for prompt, cached in ((1000, 0), (1000, 900)):
        metrics.generation("fast", prompt_tokens=prompt, completion_tokens=2, seconds=1, cached_tokens=cached)
    metrics.generation("fast", prompt_tokens=500, completion_tokens=2, seconds=1)  # the worker does not say
    assert value(metrics, "prompt_tokens_cached_total", profile="fast") == 900
    assert value(metrics, "prompt_cache_hit_ratio", profile="fast") == 0.45
    for _ in range(50):
        metrics.generation("fast", prompt_tokens=10, completion_tokens=2, seconds=1, cached_tokens=10**6)
    assert value(metrics, "prompt_cache_hit_ratio", profile="fast") == 1
    assert value(metrics, "prompt_tokens_cached_total", profile="fast") == 1400


def test_what_became_of_stored_prompts_is_counted_by_its_outcome(metrics: Metrics) -> None:
    for outcome in ("stored", "restored", "restored"):
        metrics.record("fast", StoredPrompt(outcome))
    found = [value(metrics, "stored_prompts_total", profile="fast", outcome=one) for one in OUTCOMES]
    assert found == [1, 2, 0]
    assert metrics.reuse("fast").told(CacheSize(3, 70, None)) == {
        "prompt_tokens": 0,
        "cached_tokens": 0,
        "ratio": None,
        "entries": 3,
        "bytes": 70,
        "limit_bytes": None,
        "stored_prompts": {"stored": 1, "restored": 2, "refused": 0},
    }
