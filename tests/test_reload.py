"""A reload of the profiles: what changed is restarted, what was removed is gone, what is broken is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.harness import alive, fake, serving


@pytest.mark.fault(23, 24)
async def test_a_reload_restarts_only_what_changed_and_refuses_what_is_broken(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake(), "b": fake()}) as served:
        pids = {name: served.row(name)["pid"] for name in "ab"}
        assert (await served.post("/api/reload")).json == {"changed": []}
        served.write("b", 'model = "x"\ncolour = 1\n')
        refused = await served.post("/api/reload")
        assert refused.status == 400
        assert "b.toml:2: colour: unknown key" in refused.json["error"]["message"]
        served.write("b", fake(top='aliases = ["bee"]'))
        assert (await served.post("/api/reload")).json == {"changed": ["b"]}
        assert (await served.ask("bee")).status == 200
        assert {name: served.row(name)["pid"] for name in "ab"} == pids
        served.write("b", fake("--load", "0.01"))
        assert (await served.post("/api/reload")).json == {"changed": ["b"]}
        await served.until(lambda: served.state("b") == "ready" and served.row("b")["pid"] != pids["b"])
        assert served.row("a")["pid"] == pids["a"]
        assert (await served.ask("bee")).status == 404


@pytest.mark.fault(25)
async def test_a_removed_profile_finishes_its_stream_and_is_gone(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake(), "b": fake()}) as served:
        pid = served.row("a")["pid"]
        streaming = asyncio.create_task(served.ask("a", "[[slow 0.05]]", stream=True))
        await served.until_queue("a")
        (served.profiles / "a.toml").unlink()
        assert (await served.post("/api/reload")).json == {"changed": ["a"]}
        assert (await served.ask("a")).status == 404
        assert (await streaming).events[-1] == "[DONE]"
        await served.until(lambda: not alive(pid))


async def test_a_removed_profile_takes_its_series_along_and_may_come_back(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake(), "b": fake()}) as served:
        text = (served.profiles / "a.toml").read_text()
        (served.profiles / "a.toml").unlink()
        await served.post("/api/reload")
        served.write("a", text)  # while the old worker may still be ending
        await served.post("/api/reload")
        await served.until_state("a", "ready")
        assert (await served.ask("a")).status == 200
        assert (await served.metrics())['draftd_prompt_tokens_total{profile="a"}'] == 7
        pid = served.row("b")["pid"]
        (served.profiles / "b.toml").unlink()
        await served.post("/api/reload")
        await served.until(lambda: not alive(pid))
        await served.until(lambda: b'profile="b"' not in served.daemon.metrics.render()[0])


async def test_a_changed_profile_does_not_revive_what_an_operator_stopped(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake("--ignore-sigterm")}, stop_grace=0.3) as served:
        await served.post("/api/workers/a/stop")
        served.write("a", fake("--load", "0.01"))
        await served.post("/api/reload")
        await served.until_state("a", "stopped")
        assert (await served.ask("a")).json["error"]["code"] == "worker_stopped"
        assert served.state("a") == "stopped"
