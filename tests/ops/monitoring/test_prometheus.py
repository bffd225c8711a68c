"""What `draftd prometheus` prints, checked by promtool and used by a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner

from draftd.cli import app
from draftd.ops.monitoring import dashboard
from draftd.ops.monitoring.prometheus import KEY_FILE, RULES, RULES_FILE, config
from draftd.telemetry.records import DraftAcceptance, GenerationReport
from tests.harness import LIMIT, Served, chat, fake, free_ports, serving

KEY = "a-long-random-text"


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing (Debian package prometheus)")
    return found


def files(folder: Path, text: str, *, key: str = "") -> Path:
    """A folder made as the comments in the configuration say."""
    folder.mkdir(exist_ok=True)
    (folder / RULES_FILE).write_text(RULES)
    (folder / "prometheus.yml").write_text(text)
    if key:
        (folder / KEY_FILE).write_text(key)
    return folder / "prometheus.yml"


def promtool(*words: str | Path) -> None:
    done = subprocess.run(
        [program("promtool"), *words], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("key", ["", KEY], ids=["open", "key"])
def test_promtool_takes_both_files_and_the_key_is_in_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    if key:
        monkeypatch.setenv("DRAFTD_API_KEY", key)
    printed = CliRunner().invoke(app, ["prometheus"])
    rules = CliRunner().invoke(app, ["prometheus", "--rules"])
    assert (printed.exit_code, rules.exit_code) == (0, 0)
    assert rules.stdout == RULES
    assert KEY not in printed.stdout
    assert ("credentials_file" in printed.stdout) == bool(key)
    assert '["127.0.0.1:8080"]' in printed.stdout
    promtool("check", "config", files(tmp_path / "made", printed.stdout, key=key))
    promtool("check", "rules", tmp_path / "made" / RULES_FILE)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://127.0.0.1:9", "127.0.0.1:9"),
        ("http://box.local:8080", "box.local:8080"),
        ("http://[fe80::1]:8080", "[fe80::1]:8080"),
    ],
)
def test_the_target_is_where_the_daemon_can_be_asked(url: str, target: str) -> None:
    assert f'- targets: ["{target}"]\n' in config(url, with_key=False)


# Minutes: `max` keeps 40 % all the time, `fast` 80 %; `rare` keeps 40 % of a request every ten minutes, `idle`
# nothing of nothing; `better` goes from 40 % to 80 % after ten minutes.
RULE_TESTS = """\
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'draftd_draft_tokens_proposed_total{{instance="i",profile="max"}}', values: '0+100x60'}}
      - {{series: 'draftd_draft_tokens_accepted_total{{instance="i",profile="max"}}', values: '0+40x60'}}
      - {{series: 'draftd_draft_tokens_proposed_total{{instance="i",profile="fast"}}', values: '0+100x60'}}
      - {{series: 'draftd_draft_tokens_accepted_total{{instance="i",profile="fast"}}', values: '0+80x60'}}
      - {{series: 'draftd_draft_tokens_proposed_total{{instance="i",profile="rare"}}', values: '{rare_proposed}'}}
      - {{series: 'draftd_draft_tokens_accepted_total{{instance="i",profile="rare"}}', values: '{rare_accepted}'}}
      - {{series: 'draftd_draft_tokens_proposed_total{{instance="i",profile="idle"}}', values: '500x60'}}
      - {{series: 'draftd_draft_tokens_accepted_total{{instance="i",profile="idle"}}', values: '100x60'}}
      - {{series: 'draftd_draft_tokens_proposed_total{{instance="i",profile="better"}}', values: '0+100x60'}}
      - {{series: 'draftd_draft_tokens_accepted_total{{instance="i",profile="better"}}', values: '{better}'}}
      - {{series: 'draftd_worker_state{{instance="i",profile="max",state="failed"}}', values: '0x20 1x10 0x30'}}
      - {{series: 'draftd_worker_state{{instance="i",profile="max",state="ready"}}', values: '1x20 0x10 1x30'}}
    alert_rule_test:
      - {{eval_time: 15m, alertname: DraftdAcceptanceLow, exp_alerts: []}}
      - eval_time: 40m
        alertname: DraftdAcceptanceLow
        exp_alerts:
          - exp_labels: {{severity: warning, instance: i, profile: max}}
            exp_annotations: {{summary: "draftd: max keeps 40% of its draft tokens", description: {low} }}
          - exp_labels: {{severity: warning, instance: i, profile: rare}}
            exp_annotations: {{summary: "draftd: rare keeps 40% of its draft tokens", description: {low} }}
      - {{eval_time: 20m, alertname: DraftdWorkerFailed, exp_alerts: []}}
      - eval_time: 21m
        alertname: DraftdWorkerFailed
        exp_alerts:
          - exp_labels: {{severity: critical, instance: i, profile: max, state: failed}}
            exp_annotations: {{summary: "draftd: max has failed", description: {failed} }}
      - {{eval_time: 32m, alertname: DraftdWorkerFailed, exp_alerts: []}}
"""
LOW = (
    "Under 60 % drafting rarely pays. A shorter draft (num_draft_tokens), another draft model or a lower"
    " temperature may help; 'draftd bench' measures it."
)
FAILED = (
    "The worker failed too often and stays down until a person looks. 'draftd logs max' shows why,"
    " 'draftd restart max' tries again."
)


def test_the_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    (tmp_path / RULES_FILE).write_text(RULES)
    steps = [minute // 10 for minute in range(61)]
    test = tmp_path / "test.yml"
    text = RULE_TESTS.format(
        rules=RULES_FILE,
        rare_proposed=" ".join(str(step * 100) for step in steps),
        rare_accepted=" ".join(str(step * 40) for step in steps),
        better="0+40x10 480+80x49",
        low=json.dumps(LOW),
        failed=json.dumps(FAILED),
    )
    test.write_text(text)
    promtool("test", "rules", test)


class Prometheus:
    """A running Prometheus, asked over its HTTP API."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def query(self, expression: str) -> list[Any]:
        async with self._http.get(f"{self._url}/api/v1/query", params={"query": expression}) as answer:
            body = await answer.json()
        assert body["status"] == "success", (expression, body)
        found: list[Any] = body["data"]["result"]
        return found

    async def until(self, expression: str) -> list[Any]:
        """Ask until there is an answer; Prometheus does not say when it has scraped."""
        async with asyncio.timeout(LIMIT):
            while not (found := await self.query(expression)):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        return found


@asynccontextmanager
async def scraping(tmp_path: Path, served: Served) -> AsyncIterator[Prometheus]:
    """A real Prometheus with our files as printed, except that it scrapes more often."""
    port = free_ports()
    text = config(served.url, with_key=True).replace("15s", "200ms")
    made = files(tmp_path / "prometheus", text, key=KEY)
    process = await asyncio.create_subprocess_exec(
        program("prometheus"),
        f"--config.file={made}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as http:
            async with asyncio.timeout(LIMIT):
                while not await _is_ready(http, url):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)
            yield Prometheus(http, url)
    finally:
        process.terminate()
        await process.wait()


async def _is_ready(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/-/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False


@pytest.mark.real
async def test_a_real_prometheus_has_an_answer_for_every_panel_and_alert(tmp_path: Path) -> None:
    profiles = {
        "good": fake("--accepted", "0.8"),
        "bad": fake("--exit-at-start", "1", tables="[restart]\nmax_failures = 1\n"),
    }
    headers = {"Authorization": f"Bearer {KEY}"}
    async with serving(tmp_path, profiles, ready=False, api_key=KEY) as served:
        await served.until_state("good", "ready")
        await served.until_state("bad", "failed")
        async with scraping(tmp_path, served) as prometheus:
            assert await prometheus.until('up{job="draftd"} == 1')
            for _ in range(3):
                body = chat(model="good", stream=True)
                assert (await served.post("/v1/chat/completions", body, headers=headers)).status == 200
                drafters = {"lookup": DraftAcceptance(1, 2)}
                report = GenerationReport(
                    1, 2, 1, 0, 2, (1, 0), (1, 1), tokens=2, speedup=1.1, drafters=drafters
                )
                served.daemon.metrics.record("good", report)
            for panel in json.loads(dashboard())["panels"]:
                for target in panel["targets"]:
                    expression = (
                        target["expr"].replace("$__rate_interval", "30s").replace("$profile", "good|bad")
                    )
                    assert await prometheus.until(expression), panel["title"]
            failed = await prometheus.until('ALERTS{alertname="DraftdWorkerFailed", alertstate="firing"}')
            assert [alert["metric"]["profile"] for alert in failed] == ["bad"]
            share = await prometheus.until(
                'increase(draftd_draft_tokens_accepted_total{profile="good"}[1m])'
                ' / increase(draftd_draft_tokens_proposed_total{profile="good"}[1m]) > 0'
            )
            # Of each request 8 of 10 by the line of its server, and 1 of 2 by the report that is made here.
            assert float(share[0]["value"][1]) == pytest.approx(9 / 12)
