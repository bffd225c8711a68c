"""A bench that the daemon starts, here a scripted one: followed, stopped, refused, and ended with the daemon."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from draftd.web import benches
from tests.harness import LIMIT, Served, alive, fake, serving, until_gone

REPORT = {"verdict": ["overall: 5 is best"], "cells": []}
BENCH = """
import json, sys, time
say = lambda **told: print(json.dumps(told), flush=True)
say(event="progress", doing=" ".join(sys.argv[1:]), done=1, total=4)
print("no JSON at all", flush=True)
say(event="progress", doing="the rest", done=2, total=4)
"""
ENDS = {
    "well": f"say(event='report', report={REPORT!r})",
    "badly": "print('draftd: the worker cannot be loaded', file=sys.stderr); sys.exit(1)",
    "silently": "sys.exit(1)",
    "never": "time.sleep(600)",
}


def scripted(served: Served, end: str) -> None:
    served.daemon.benches.command = (sys.executable, "-c", f"{BENCH}\n{ENDS[end]}")


async def ended(served: Served) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT):
        while (bench := (await served.get("/api/bench")).json["bench"])["running"]:
            pass
    return dict(bench)


async def test_a_bench_is_watched_to_its_result(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake(top='aliases = ["first"]\nautostart = false')}) as served:
        assert (await served.get("/api/bench")).json == {"demo": False, "bench": None}
        assert (await served.get("/api/status")).json["bench"] is None
        scripted(served, "well")
        begun = await served.post("/api/bench", {"profile": "first", "quick": True})
        assert (begun.status, begun.json["running"], begun.json["profile"]) == (202, True, "a")
        bench = await ended(served)
        assert {name: bench[name] for name in ("doing", "done", "total", "report", "error", "stopped")} == {
            "doing": "the rest", "done": 2, "total": 4, "report": REPORT, "error": None, "stopped": False,
        }  # fmt: skip
        assert "report" not in (await served.get("/api/status")).json["bench"]


async def test_the_command_is_that_of_a_terminal_with_the_daemons_folders(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake(top="autostart = false")}) as served:
        *python, verb, form, profiles, folder, state, place = served.daemon.benches.command
        assert python[1:] == ["-m", "draftd"]
        assert (verb, form) == ("bench", "--json-lines")
        assert (profiles, folder) == ("--profiles", str(tmp_path / "profiles"))
        assert (state, place) == ("--state-dir", str(tmp_path / "state"))


@pytest.mark.parametrize(
    ("end", "error"),
    [("badly", "the worker cannot be loaded"), ("silently", "it ended without a message")],
)
async def test_why_a_bench_failed_is_told(tmp_path: Path, end: str, error: str) -> None:
    async with serving(tmp_path, {"a": fake(top="autostart = false")}) as served:
        scripted(served, end)
        await served.post("/api/bench", {"profile": "a"})
        bench = await ended(served)
        assert (bench["report"], bench["error"]) == (None, error)


async def test_one_bench_at_a_time_which_can_be_stopped_and_ends_with_the_daemon(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake(top="autostart = false")}) as served:
        nothing = await served.post("/api/bench/stop")
        assert (nothing.status, nothing.json["error"]["code"]) == (409, "no_bench")
        scripted(served, "never")
        await served.post("/api/bench", {"profile": "a"})
        second = await served.post("/api/bench", {"profile": "a"})
        assert (second.status, second.json["error"]["code"]) == (409, "bench_running")
        assert (await served.post("/api/bench/stop")).status == 202
        bench = await ended(served)
        assert (bench["stopped"], bench["error"]) == (True, None)
        assert (await served.post("/api/bench", {"profile": "a"})).status == 202
        run = served.daemon.benches._run
        assert run is not None
        assert alive(run.process.pid)
    await until_gone(run.process.pid)


async def test_what_cannot_be_measured_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, {"a": fake(top="autostart = false")}) as served:
        scripted(served, "well")
        for body, status, said in (
            ({"profile": "nobody"}, 404, "nobody"),
            ({}, 400, "profile must be"),
            ({"profile": "a", "runs": 5}, 400, "there is no field 'runs'"),
            ({"profile": "a", "quick": "yes"}, 400, "quick must be"),
            ([], 400, "must be a JSON object"),
        ):
            refused = await served.post("/api/bench", body)
            assert (refused.status, said in refused.text) == (status, True), body
        monkeypatch.setattr(benches, "weight_bytes", lambda models: 10**15 * len(models))
        large = await served.post("/api/bench", {"profile": "a"})
        assert (large.status, large.json["error"]["code"]) == (409, "no_room")
        assert "stop workers first" in large.text
        served.daemon.benches._has_models = True  # as with --demo
        named = await served.post("/api/bench", {"profile": "a"})
        assert (named.status, "name no profile" in named.text) == (400, True)
        assert (await served.post("/api/bench", {"quick": True})).status == 202
        assert (await ended(served))["report"] == json.loads(json.dumps(REPORT))


async def test_an_odd_line_of_a_bench_is_passed_over(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake(top="autostart = false")}) as served:
        scripted(served, "well")
        await served.post("/api/bench", {"profile": "a"})
        run = served.daemon.benches._run
        assert run is not None
        for line in (b"5\n", b"[1]\n", b'"x"\n', b'{"event": "progress"}\n', b"[" * 100_000):
            served.daemon.benches._take(run, line)
        assert (await ended(served))["error"] is None
