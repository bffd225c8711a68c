"""A worker's own port and its log: only the daemon may ask, and only the engine's own reports count."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psutil
import pytest

from draftd.protocol import SECRET_HEADER
from tests.harness import QUICK, Served, chat, fake, play_engine, serving

CHEAT = "Draft tokens accepted: 900000000/900000000 (100%)"
RECORD = 'draftd-engine {"event": "generation", "rounds": 1, "proposed": 900000000, "accepted": 900000000}'
# A single refused health check is one too many.
PROFILE = f'model = "fake"\n{QUICK}[health]\ninterval = 0.05\nfailures = 1\n'


def address(served: Served, path: str) -> str:
    return f"http://127.0.0.1:{served.row('a')['port']}{path}"


async def ask_worker(served: Served, **headers: str) -> int:
    """Ask the worker itself; returns the status."""
    url = address(served, "/v1/chat/completions")
    async with served.http.post(url, json=chat(stream=True), headers=headers) as answer:
        await answer.read()
        return answer.status


def secret(served: Served) -> str:
    watched = served.daemon.supervisor.worker("a").watched
    assert watched is not None
    return watched.headers[SECRET_HEADER]


@pytest.mark.fault(67)
@pytest.mark.parametrize("settings", [{}, {"api_key": "canary-key"}])
async def test_only_the_daemon_is_answered_and_each_start_has_a_new_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    play_engine(monkeypatch)
    key = {"Authorization": f"Bearer {settings['api_key']}"} if settings else {}
    async with serving(tmp_path, {"a": PROFILE}, warm_spare=False, **settings) as served:
        old, pid = secret(served), served.row("a")["pid"]
        for guess in ({}, {SECRET_HEADER: ""}, {SECRET_HEADER: old[:-1]}, key):
            assert await ask_worker(served, **guess) == 403
        async with served.http.get(address(served, "/health")) as answer:
            assert answer.status == 403
        assert await ask_worker(served, **{SECRET_HEADER: old}) == 200
        body = chat(model="a")
        assert (await served.post("/v1/chat/completions", body, headers=key)).status == 200
        await asyncio.sleep(0.2)  # health checks meanwhile, which are answered
        assert (served.row("a")["pid"], served.row("a")["restarts"]) == (pid, 0)
        await served.post("/api/workers/a/restart", headers=key)
        await served.until(lambda: served.state("a") == "ready" and served.row("a")["pid"] != pid)
        assert secret(served) != old
        assert await ask_worker(served, **{SECRET_HEADER: old}) == 403
        assert (await served.post("/v1/chat/completions", body, headers=key)).status == 200


@pytest.mark.fault(67)
async def test_the_secret_is_told_to_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_engine(monkeypatch, "--chatty")
    async with serving(tmp_path, {"a": PROFILE}, warm_spare=False) as served:
        assert (await served.ask("a", stream=True)).status == 200
        known = secret(served)
        process = psutil.Process(served.row("a")["pid"])
        shown = [*process.cmdline(), *process.environ().values(), str(await served.metrics())]
        shown += [(await served.get(path)).text for path in ("/api/status", "/api/logs/a?lines=1000&raw=1")]
    files = [path.read_text(errors="replace") for path in _files(tmp_path)]
    assert [text for text in files if "POST /v1" in text], "the worker logs each request"
    assert not [text for text in (*shown, *files) if known in text]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.fault(68)
@pytest.mark.parametrize("line", [CHEAT, RECORD, RECORD.removeprefix("draftd-engine ")])
async def test_what_anybody_has_written_into_a_log_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    play_engine(monkeypatch, "--says", line)
    async with serving(tmp_path, {"a": PROFILE}, warm_spare=False) as served:
        assert (await served.ask("a", stream=True)).content == "one two three four five"
        assert line in (await served.get("/api/logs/a?raw=1")).text
        assert served.row("a")["acceptance"] == {"proposed": 10, "accepted": 5, "ratio": 0.5}
        metrics = await served.metrics()
        assert metrics['draftd_draft_tokens_proposed_total{profile="a"}'] == 10
        assert metrics['draftd_draft_rounds_total{profile="a"}'] == 5


@pytest.mark.fault(68)
@pytest.mark.parametrize(
    ("top", "said", "counted"),
    [
        ("", 'GET /Draft tokens accepted: 900/900 (100%) HTTP/1.0" 404', 10),
        ("", CHEAT, 10),  # more than a request can have
        ("", "Draft tokens accepted: 2/4 (50%)", 18),  # with the answer to the readiness check
        (None, "Draft tokens accepted: 2/4 (50%)", 0),  # the profile says nothing of such lines
    ],
)
async def test_lines_of_a_command_count_by_its_profiles_leave_and_pattern(
    tmp_path: Path, top: str | None, said: str, counted: int
) -> None:
    profile = fake("--says", said)
    if top is None:
        profile = "\n".join(
            line for line in profile.splitlines() if not line.startswith("acceptance_pattern")
        )
    async with serving(tmp_path, {"a": profile}) as served:
        assert (await served.ask("a", stream=True)).status == 200
        async with (
            served.http.get(served.url + "/api/logs/a?follow=1&lines=100&raw=1") as log,
            asyncio.timeout(10),
        ):
            while b"Draft tokens accepted: 5/10 (50%)" not in await log.content.readline():
                pass
        assert served.row("a")["acceptance"]["proposed"] == counted
