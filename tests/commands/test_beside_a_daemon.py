"""The commands around serving while a daemon runs, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.forked import LIMIT
from tests.harness import fake, free_ports
from tests.test_cli import DRAFTD, up


def test_the_verbs_take_address_and_models_from_the_daemon(tmp_path: Path) -> None:
    with up(tmp_path, "one-fast", "two-fast") as daemon:
        url = f"http://127.0.0.1:{daemon.port}"
        alone = daemon.run().stdout
        assert f"serves at {url}/v1, pid {daemon.process.pid}; 'draftd down' stops it" in alone
        assert "one-fast" in alone
        assert alone.count("\n  draftd ") == 4

        config = json.loads(daemon.run("opencode").stdout)
        provider = config["provider"]["speculative"]
        assert provider["options"]["baseURL"] == f"{url}/v1"
        assert list(provider["models"]) == ["one-fast", "two-fast"]
        assert config["model"] == "speculative/one-fast"
        assert f"{url}/v1/chat/completions" in daemon.run("clients", "curl").stdout

        for verb in ("logs", "stop"):
            refused = daemon.run(verb, "fast")
            assert refused.returncode == 2
            assert "'fast' fits several profiles; there are: one-fast, two-fast" in refused.stderr
        assert "there is no model 'nope'; there are: one-fast, two-fast" in daemon.run("logs", "nope").stderr

        (tmp_path / "profiles" / "three.toml").write_text(fake(top='aliases = ["fast"]'))
        daemon.until("worker ready", 3)
        assert daemon.run("stop", "fast").stdout == "three is stopped\n"


def test_the_daemons_own_log_can_go_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "a.toml").write_text(fake())
    file = tmp_path / "logs" / "draftd.log"
    env = os.environ | {
        "DRAFTD_PROFILES": str(tmp_path / "profiles"),
        "DRAFTD_STATE_DIR": str(tmp_path / "state"),
        "DRAFTD_LOG_FILE": str(file),
    }
    ports = ["--port", str(free_ports()), "--base-port", str(free_ports(2))]
    command = [*DRAFTD, "up", "--plain", *ports]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # what to try next, once the worker is ready
        process.terminate()
        rest = process.stderr.read()
        assert process.wait(LIMIT) == 0
    assert first.startswith("draftd serves at"), first + rest
    assert '"event"' not in rest
    events = [json.loads(line)["event"] for line in file.read_text().splitlines()]
    assert {"draftd serves", "worker ready", "draftd has stopped"} <= set(events)
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(file.parent) == ["draftd.log"]
