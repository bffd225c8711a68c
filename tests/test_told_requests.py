"""What a daemon tells of its requests: logs, figures, contents; and how one of them is cancelled."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import psutil
import pytest

from draftd.telemetry.told import Told
from tests.harness import LIMIT, fake, serving


@pytest.mark.fault(17)
@pytest.mark.thorough
async def test_a_flood_of_output_neither_blocks_the_child_nor_fills_the_daemon(tmp_path: Path) -> None:
    before = psutil.Process().memory_info().rss
    # It takes seconds of both processes' work, and as long again of rests.
    async with serving(tmp_path, {"a": fake("--chatter", str(100 * 2**20))}, ready_limit=4 * LIMIT) as served:
        assert (await served.ask("a")).status == 200
        assert psutil.Process().memory_info().rss - before < 60 * 2**20
        shown = (await served.get("/api/logs/a?lines=1000")).text
        kept = (tmp_path / "state" / "logs" / "a.log").read_bytes()
        for text in (shown, kept.decode()):
            assert not [byte for byte in "\x00\x1b\r" if byte in text]
        assert "\\x1b[2J" in shown


async def test_logs_are_shown_and_followed(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        assert "fake server of fake" in (await served.get("/api/logs/a")).text
        assert (await served.get("/api/logs/a?lines=x")).status == 400
        assert (await served.get("/api/logs/a?since=nan")).status == 400
        async with served.http.get(served.url + "/api/logs/a?follow=1&lines=1") as following:
            await served.ask("a")
            missing = {b"Draft tokens accepted: 5/10 (50%)", b" 200      5 tokens "}
            async with asyncio.timeout(5):
                while missing:
                    line = await following.content.readline()
                    missing = {text for text in missing if text not in line}


async def test_a_log_is_for_people_unless_all_is_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake("--says", 'draftd-engine {"odd": 1}'), "b": fake()}) as served:
        began = time.time()
        for name in "ab":
            await served.ask(name)
        assert "draftd-engine" not in (await served.get("/api/logs/a")).text
        assert 'draftd-engine {"odd": 1}' in (await served.get("/api/logs/a?raw=1")).text
        assert "fake server of fake" not in (await served.get(f"/api/logs/a?since={began}")).text
        lines = [json.loads(line) for line in (await served.get("/api/logs?json=1")).text.splitlines()]
        told = [line["worker"] for line in lines if line["text"].startswith("200 ")]
        assert told == ["a", "b"]
        assert "a: 200 " in (await served.get("/api/logs")).text
        await served.ask("a")
        served.daemon.chronicle.take_event(Told(0.0, "", "an event", "plain"))
        served.daemon.chronicle.take_event(Told(0.0, "a", "ready", "good"))
        own = (await served.get("/api/logs/daemon")).text
        assert [line[9:] for line in own.splitlines()[-2:]] == ["an event", "a: ready"]
        last = (await served.get("/api/logs/a?lines=2")).text.splitlines()
        assert [line[9:].split()[0] for line in last] == ["200", "ready"]
        assert (await served.get("/api/logs?lines=2&json=1")).text.count('"an event"') == 1
        assert (await served.get("/api/logs/nobody")).status == 404


async def test_a_request_is_told_of_while_it_runs_and_can_be_cancelled(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        asking = asyncio.create_task(served.ask("a", "[[slow 1]]", stream=True))
        await served.until_queue("a")
        async with asyncio.timeout(LIMIT):
            while not (known := (await served.get("/api/requests")).json["requests"])[0]["first_token"]:
                pass
        [record] = known
        assert (record["profile"], record["phase"], record["status"]) == ("a", "answering", None)
        assert (await served.post(f"/api/requests/{record['id']}/cancel")).status == 202
        answer = await asking
        assert answer.cut
        assert answer.events[-1]["error"]["code"] == "cancelled"
        await served.until_queue("a", active=0)
        [record] = (await served.get("/api/requests")).json["requests"]
        assert (record["phase"], record["status"], record["cancelled"]) == ("ended", 503, True)
        again = await served.post(f"/api/requests/{record['id']}/cancel")
        assert (again.status, again.json["error"]["code"]) == (404, "request_not_found")
        # The connection's own task goes on as if nothing had happened.
        assert (await served.ask("a")).status == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_contents_of_requests_are_kept_only_while_that_is_switched_on(
    tmp_path: Path, stream: bool
) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        await served.ask("a", "a secret", stream=stream)
        assert (await served.get("/api/status")).json["capture"] is False
        assert (await served.post("/api/capture/on")).json == {"capture": True}
        await served.ask("a", "a question", stream=stream)
        await served.ask("a", "[[die-mid-stream]]", stream=stream)
        await served.ask("nobody", "to nobody", stream=stream)
        before, *after = (await served.get("/api/requests")).json["requests"]
        assert [record["captured"] for record in (before, *after)] == [False, True, True, True]
        paths = [f"/api/requests/{record['id']}/contents" for record in after]
        whole, broken, refused = [(await served.get(path)).json for path in paths]
        assert json.loads(whole["request"])["messages"][0]["content"] == "a question"
        assert json.loads(whole["answer"])["content"] == "one two three four five"
        assert json.loads(broken["answer"])["content"] == "one two"
        assert (json.loads(refused["request"])["model"], refused["answer"]) == ("nobody", None)
        assert (await served.get("/api/status")).json["capture"] is True
        unknown = await served.get(f"/api/requests/{before['id']}/contents")
        assert (unknown.status, unknown.json["error"]["code"]) == (404, "not_captured")
        await served.post("/api/capture/off")
        assert (await served.get(paths[0])).status == 404
        await served.post("/api/capture/on")
        assert (await served.get(paths[0])).status == 404
        assert (await served.post("/api/capture/maybe")).status == 404


async def test_a_request_that_waits_for_its_turn_can_be_cancelled(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake(tables="[limits]\nconcurrency = 1\n")}) as served:
        first = asyncio.create_task(served.ask("a", "[[wait 0.5]]"))
        await served.until_queue("a")
        second = asyncio.create_task(served.ask("a"))
        await served.until_queue("a", waiting=1)
        waiting = next(r for r in served.daemon.journal.since(0) if r.phase == "waiting")
        assert served.daemon.journal.cancel(waiting.id)
        refused = await second
        assert (refused.status, refused.json["error"]["code"]) == (503, "cancelled")
        assert refused.headers["x-should-retry"] == "false"
        assert (await first).status == 200


async def test_acceptance_lines_become_metrics_and_status(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        for _ in range(3):
            await served.ask("a", max_tokens=4)
        await served.ask("a", stream=True)
        metrics = await served.metrics()
        assert metrics['draftd_draft_tokens_proposed_total{profile="a"}'] == 3 * 8 + 10
        assert metrics['draftd_draft_tokens_accepted_total{profile="a"}'] == 3 * 4 + 5
        assert metrics['draftd_completion_tokens_total{profile="a"}'] == 3 * 4 + 5
        assert metrics['draftd_prompt_tokens_total{profile="a"}'] == 4 * 7
        key = 'draftd_requests_total{endpoint="chat.completions",profile="a",status="200"}'
        assert metrics[key] == 4
        assert metrics['draftd_worker_state{profile="a",state="ready"}'] == 1
        row = served.row("a")
        assert row["acceptance"] == {"proposed": 34, "accepted": 17, "ratio": 0.5}
        assert row["requests"] == 4
