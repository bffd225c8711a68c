"""The command as a user types it, in processes of its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from daemon.cli import app
from tests.harness import alive, fake, free_ports

DRAFTD = [sys.executable, "-m", "daemon.cli"]
LIMIT = 20.0  # seconds


class Up:
    """`draftd up --plain` with scripted children."""

    def __init__(
        self, tmp_path: Path, *names: str, profile: str | None = None, limit: tuple[str, ...] = ()
    ) -> None:
        folder = tmp_path / "profiles"
        folder.mkdir()
        for name in names:
            (folder / f"{name}.toml").write_text(profile or fake())
        self.state_dir = tmp_path / "state"
        self.port = free_ports()
        self.env = _clean_environment(tmp_path) | {
            "DRAFTD_PROFILES": str(folder),
            "DRAFTD_STATE_DIR": str(self.state_dir),
        }
        options = ["--port", str(self.port), "--base-port", str(free_ports(len(names) + 1))]
        command = [*DRAFTD, "up", "--plain", *options]
        if limit:
            command = ["bash", "-c", f'{shlex.join(limit)}; exec "$@"', "bash", *command]
        self.process = subprocess.Popen(command, env=self.env, stderr=subprocess.PIPE, text=True)
        self.said: list[dict[str, Any]] = []
        self.watchdog = threading.Timer(3 * LIMIT, self.process.kill)  # a test never waits for ever
        self.watchdog.start()

    def until(self, event: str, count: int = 1) -> dict[str, Any]:
        """Read the log until it has told of `event` so often; that line."""
        assert self.process.stderr is not None
        while sum(line.get("event") == event for line in self.said) < count:
            line = self.process.stderr.readline()
            assert line, f"the daemon ended before '{event}': {self.said[-3:]}"
            if line.startswith("{"):
                self.said.append(json.loads(line))
        return [line for line in self.said if line.get("event") == event][-1]

    def child(self) -> int:
        """The pid of the only worker."""
        return psutil.Process(self.process.pid).children()[0].pid

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another draftd command for the same state folder."""
        return subprocess.run(
            [*DRAFTD, *words], env=self.env, capture_output=True, text=True, timeout=LIMIT, check=False
        )

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.run("status", "--json").stdout)["workers"]
        return rows


def _clean_environment(tmp_path: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DRAFTD_")}
    return kept | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "COLUMNS": "120"}


@contextmanager
def up(tmp_path: Path, *names: str, profile: str | None = None, limit: tuple[str, ...] = ()) -> Iterator[Up]:
    """Yields when every worker is ready; nothing is left of it afterwards."""
    daemon = Up(tmp_path, *names, profile=profile, limit=limit)
    try:
        daemon.until("worker ready", len(names))
        yield daemon
    finally:
        daemon.watchdog.cancel()
        daemon.process.terminate()
        daemon.process.wait(LIMIT)
        assert daemon.process.stderr is not None
        daemon.process.stderr.close()


def test_a_day_with_the_command_line(tmp_path: Path) -> None:
    with up(tmp_path, "one-fast", "two-max") as daemon:
        shown = daemon.run("status").stdout
        assert "one-fast" in shown
        assert "ready" in shown
        before = {row["name"]: row["pid"] for row in daemon.rows()}
        assert daemon.run("restart", "fast").stdout == "one-fast is ready\n"
        after = {row["name"]: row["pid"] for row in daemon.rows()}
        assert after["one-fast"] != before["one-fast"]
        assert after["two-max"] == before["two-max"]
        assert daemon.run("stop", "max").stdout == "two-max is stopped\n"
        assert daemon.run("start", "two-max").stdout == "two-max is ready\n"
        assert "fake server of fake" in daemon.run("logs", "fast").stdout
        assert daemon.run("reload").stdout == "nothing changed\n"
        assert daemon.run("down").stdout == "draftd has stopped\n"
        assert daemon.process.wait(LIMIT) == 0
        assert daemon.run("status").returncode == 3


@pytest.mark.fault(21)
def test_a_second_daemon_is_refused_and_says_who_runs(tmp_path: Path) -> None:
    with up(tmp_path, "a") as daemon:
        second = daemon.run("up", "--plain", "--port", str(free_ports()))
        assert second.returncode == 1
        assert f"pid {daemon.process.pid}" in second.stderr
        assert f"http://127.0.0.1:{daemon.port}" in second.stderr
        assert daemon.rows()[0]["state"] == "ready"


@pytest.mark.fault(16, 20)
def test_nothing_is_left_when_the_daemon_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "grandchild"
    with up(tmp_path, "a", profile=fake("--grandchild", str(pids), "--ignore-sigterm")) as daemon:
        family = psutil.Process(daemon.process.pid).children(recursive=True)
        assert int(pids.read_text()) in {process.pid for process in family}
        daemon.process.kill()
        _, left = psutil.wait_procs(family, timeout=2)
        assert [process for process in left if alive(process.pid)] == []
    (tmp_path / "profiles" / "a.toml").unlink()
    (tmp_path / "profiles").rmdir()
    with up(tmp_path, "a") as again:  # the same state folder, with the note of the killed daemon in it
        assert again.rows()[0]["state"] == "ready"


def test_sighup_reloads(tmp_path: Path) -> None:
    with up(tmp_path, "a") as daemon:
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.until("profiles applied", 2)["changed"] == []


@pytest.mark.fault(22)
def test_a_stale_note_never_leads_to_a_strangers_end(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as stranger:
        note = {
            "pid": stranger.pid,
            "created": psutil.Process(stranger.pid).create_time(),
            "url": "http://x",
            "version": "1",
        }
        (state / "daemon.json").write_text(json.dumps(note))
        (state / "daemon.lock").touch()
        env = _clean_environment(tmp_path) | {"DRAFTD_STATE_DIR": str(state)}
        done = subprocess.run(
            [*DRAFTD, "down"], env=env, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert done.returncode == 3
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.fault(26)
def test_running_out_of_descriptors_passes_by(tmp_path: Path) -> None:
    with up(tmp_path, "a", limit=("ulimit", "-n", "60")) as daemon:
        idle = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(80)]
        os.killpg(daemon.child(), signal.SIGKILL)
        assert daemon.until("worker backoff", 2)["because"] == "spawn"  # the first was the kill itself
        for connection in idle:
            connection.close()
        daemon.until("worker ready", 2)
        assert daemon.rows()[0]["state"] == "ready"


@pytest.mark.fault(23)
def test_a_changed_file_is_a_reload_and_a_broken_one_is_not(tmp_path: Path) -> None:
    with up(tmp_path, "a") as daemon:
        (tmp_path / "profiles" / "b.toml").write_text("model = 1\n")
        refused = daemon.until("reload refused; the old profiles stay in force")
        assert "b.toml:1: model" in refused["reason"]
        (tmp_path / "profiles" / "b.toml").write_text(fake())
        daemon.until("worker ready", 2)


@pytest.mark.fault(19)
def test_a_second_sigterm_does_not_wait_for_open_requests(tmp_path: Path) -> None:
    with up(tmp_path, "a") as daemon:
        body = json.dumps({"stream": True, "messages": [{"role": "user", "content": "[[slow 60]]"}]}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{daemon.port}/v1/chat/completions", body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=LIMIT) as stream:
            assert b"one" in stream.readline()
            daemon.process.terminate()
            assert daemon.until("draftd stops")["open_requests"] == 1
            daemon.process.terminate()
            assert daemon.process.wait(LIMIT) == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["status"], 3, "no daemon runs"),
        (["down"], 3, "no daemon runs"),
        (["check", "--profiles", "/nowhere"], 2, "/nowhere does not exist"),
        (["up", "--port", "99999"], 2, "--port: port: Input should be less than or equal to 65535"),
        (["up", "--demo", "speculative"], 2, "'speculative' fits several profiles"),
        (["up", "--demo", "nope"], 2, "'nope' fits no profile; there are: qwen2.5-3b-speculative-balanced"),
        (["up", "--demo", "--host", "0.0.0.0"], 2, "set DRAFTD_API_KEY"),
    ],
)
def test_bad_input_gets_a_clear_error_and_its_exit_code(
    tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    env = _clean_environment(tmp_path) | {"DRAFTD_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        [*DRAFTD, *words], env=env, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert message in done.stderr


def test_every_verb_has_help_with_an_example() -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["--help"]).stdout
    for verb in ("up", "status", "logs", "restart", "start", "stop", "reload", "down", "check"):
        assert f" {verb} " in shown
        assert f"Example: draftd {verb}" in runner.invoke(app, [verb, "--help"]).stdout
