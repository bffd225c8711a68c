"""A daemon that only sends requests to others: it has peers, and no profile of its own."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TextIO

import pytest

from tests.forked import run, start
from tests.harness import free_ports
from tests.peers.conftest import Pair

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.fault(198)
@pytest.mark.thorough
async def test_a_daemon_without_a_profile_serves_what_its_peers_have(pair: Pair, tmp_path: Path) -> None:
    there, own = pair.one.daemon.settings.port, free_ports()
    (tmp_path / "empty").mkdir()
    env = os.environ | {
        "DRAFTD_PROFILES": str(tmp_path / "empty"),
        "DRAFTD_STATE_DIR": str(tmp_path / "state"),
        "DRAFTD_PORT": str(own),
    }
    refused = await asyncio.to_thread(run, "up", "--plain", env=env)
    assert refused.returncode == 2
    assert "there is no profile (*.toml)" in refused.stderr
    env["DRAFTD_PEERS"] = json.dumps([{"url": f"http://127.0.0.1:{there}"}])
    up = await asyncio.to_thread(start, "up", "--plain", env=env)
    try:
        await asyncio.to_thread(_sees_what_peers_have, up.stderr, env, there, own)
    finally:
        up.terminate()
        assert await asyncio.to_thread(up.wait, 20.0) == 0
        if up.stderr:
            up.stderr.close()


def _sees_what_peers_have(said: TextIO | None, env: dict[str, str], there: int, own: int) -> None:
    peer = f"127.0.0.1:{there}"
    awaited = {
        "a peer answers",
        f"draftd serves at http://127.0.0.1:{own}/v1. It has no profile of its own: all requests go to {peer}",
    }
    assert said is not None
    for line in said:
        awaited -= {words for words in awaited if words in line}
        if not awaited:
            break
    assert not awaited
    checked = run("check", env=env)
    assert (checked.returncode, "0 profiles are valid" in checked.stdout) == (0, True)
    bench = run("bench", env=env)
    assert (bench.returncode, "there is no profile (*.toml)" in bench.stderr) == (2, True)
    assert run("pull", env=env).stdout == "nothing to download: there is no profile\n"
    status = run("status", env=env)
    assert f"peer {peer}: 2 models" in status.stdout
    assert "queue" not in status.stdout  # no table of workers
    asked = run("run", "hello", "--model", "mine", env=env)
    assert (asked.returncode, asked.stdout.startswith("one two three")) == (0, True), asked.stderr
    config = json.loads(run("opencode", env=env).stdout)
    assert config["provider"]["speculative"]["models"].keys() == {"m", "mine"}
