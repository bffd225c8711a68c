"""The command as a user types it, in processes of its own."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import pty
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from draftd.cli import VERBS, app
from draftd.demo import DRAFT, TARGET
from tests.forked import LIMIT, Started, run, start
from tests.harness import alive, chat, fake, free_ports

DRAFTD = [sys.executable, "-m", "draftd"]


class Up:
    """`draftd up --json` with scripted children."""

    def __init__(
        self,
        tmp_path: Path,
        *names: str,
        profile: str | None = None,
        limit: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        form: str = "--json",
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
            **(env or {}),
        }
        options = ["--port", str(self.port), "--base-port", str(free_ports(len(names) + 1))]
        words = ["up", form, *options]
        self.process: subprocess.Popen[str] | Started
        if limit or "LD_PRELOAD" in self.env:
            command = ["bash", "-c", f'{shlex.join(limit or ("true",))}; exec "$@"', "bash", *DRAFTD, *words]
            self.process = subprocess.Popen(command, env=self.env, stderr=subprocess.PIPE, text=True)
        else:
            self.process = start(*words, env=self.env)
        self.said: list[dict[str, Any]] = []
        self.watchdog = threading.Timer(3 * LIMIT, self.process.kill)  # a test never waits for ever
        self.watchdog.start()

    def until(self, event: str, count: int = 1) -> dict[str, Any]:
        """Read the log until it has mentioned `event` that many times; returns the last such line."""
        assert self.process.stderr is not None
        while sum(line.get("event") == event for line in self.said) < count:
            line = self.process.stderr.readline()
            assert line, f"the daemon ended before '{event}': {self.said[-3:]}"
            if line.startswith("{"):
                self.said.append(json.loads(line))
        return [line for line in self.said if line.get("event") == event][-1]

    def end(self) -> None:
        """Nothing is left of it."""
        self.watchdog.cancel()
        self.process.terminate()
        self.process.wait(LIMIT)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def child(self) -> int:
        """The pid of the only worker."""
        return psutil.Process(self.process.pid).children()[0].pid

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another draftd command for the same state folder."""
        return run(*words, env=self.env)

    def ask(self, text: str, **fields: Any) -> http.client.HTTPResponse:
        """The answer to a chat request, as soon as it begins."""
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        request = urllib.request.Request(url, json.dumps(chat(text, **fields)).encode())
        request.add_header("Content-Type", "application/json")
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=LIMIT)
        return answer

    def row(self) -> dict[str, Any]:
        """The only worker in /api/status."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/status", timeout=LIMIT) as answer:
            [row] = json.load(answer)["workers"]
        found: dict[str, Any] = row
        return found

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.run("status", "--json").stdout)["workers"]
        return rows


def _clean_environment(tmp_path: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DRAFTD_")}
    return kept | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "COLUMNS": "120"}


@contextmanager
def up(
    tmp_path: Path,
    *names: str,
    profile: str | None = None,
    limit: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Up]:
    """Yields when every worker is ready; nothing is left of it afterwards."""
    daemon = Up(tmp_path, *names, profile=profile, limit=limit, env=env)
    try:
        daemon.until("worker ready", len(names))
        yield daemon
    finally:
        daemon.end()


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
def test_nothing_is_left_when_the_daemon_is_killed(tmp_path: Path, measured: Callable[[float], None]) -> None:
    pids = tmp_path / "grandchild"
    with up(tmp_path, "a", profile=fake("--grandchild", str(pids), "--ignore-sigterm")) as daemon:
        family = psutil.Process(daemon.process.pid).children(recursive=True)
        assert int(pids.read_text()) in {process.pid for process in family}
        began = time.monotonic()
        daemon.process.kill()
        while left := [process for process in family if alive(process.pid)]:
            assert time.monotonic() - began < 2, left
            time.sleep(0.01)  # they are not our children: nobody tells us
        measured(time.monotonic() - began)
    (tmp_path / "profiles" / "a.toml").unlink()
    (tmp_path / "profiles").rmdir()
    with up(tmp_path, "a") as again:  # the same state folder, with the note of the killed daemon in it
        assert again.rows()[0]["state"] == "ready"


@pytest.mark.real
@pytest.mark.fault(20)
def test_a_warm_spare_takes_the_next_start_and_is_gone_with_the_daemon(
    tmp_path: Path, measured: Callable[[float], None]
) -> None:
    profile = f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\n'
    with up(tmp_path, "a", profile=profile, env={"DRAFTD_WARM_SPARE": "true"}) as daemon:
        spare = daemon.until("the warm spare waits")["pid"]
        assert "a warm spare waits: pid" in daemon.run("status").stdout
        os.killpg(daemon.row()["pid"], signal.SIGKILL)
        daemon.until("worker ready", 2)
        assert daemon.row()["pid"] == spare
        assert daemon.row()["start_seconds"] > 0
        with daemon.ask("What is a draft model?", max_tokens=20) as answer:
            assert "draft" in json.load(answer)["choices"][0]["message"]["content"]
        assert daemon.row()["acceptance"]["proposed"] > 0  # what its engine says is heard as ever
        assert daemon.until("the warm spare waits", 2)["pid"] != spare
        family = psutil.Process(daemon.process.pid).children(recursive=True)
        assert len(family) == 2
        killed = time.monotonic()
        daemon.process.kill()
        while left := [process for process in family if alive(process.pid)]:
            assert time.monotonic() - killed < 2, left
            time.sleep(0.01)
        measured(time.monotonic() - killed)


def test_sighup_reloads(tmp_path: Path) -> None:
    with up(tmp_path, "a") as daemon:
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.until("profiles applied", 2)["changed"] == []


@pytest.mark.parametrize("nohup", [False, True])
@pytest.mark.one_in(2)
def test_a_closed_terminal_ends_what_runs_in_it_unless_nohup_was_asked_for(
    tmp_path: Path, nohup: bool
) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "a.toml").write_text(fake())
    log = tmp_path / "log"
    env = _clean_environment(tmp_path) | {
        "DRAFTD_PROFILES": str(tmp_path / "profiles"),
        "DRAFTD_STATE_DIR": str(tmp_path / "state"),
        "DRAFTD_LOG_FILE": str(log),
        "DRAFTD_PORT": str(free_ports()),
        "DRAFTD_BASE_PORT": str(free_ports(2)),
    }
    pid, terminal = pty.fork()
    if pid == 0:
        if nohup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execve(sys.executable, [*DRAFTD, "up", "--json"], env)

    def until(event: str, count: int) -> None:
        deadline = time.monotonic() + LIMIT
        while not (log.exists() and log.read_text().count(f'"event": "{event}"') >= count):
            assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
            time.sleep(0.05)  # a file tells nobody

    try:
        until("worker ready", 1)
        os.kill(pid, signal.SIGHUP)  # its terminal is there: this is a reload
        until("profiles applied", 2)
        os.close(terminal)
        if nohup:
            os.kill(pid, signal.SIGHUP)
            until("profiles applied", 3)
            os.kill(pid, signal.SIGTERM)
        until("draftd has stopped", 1)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.fault(22)
@pytest.mark.parametrize("held", [False, True], ids=["the daemon is gone", "another one starts"])
def test_a_stale_note_never_leads_to_a_strangers_end(tmp_path: Path, held: bool) -> None:
    """The stranger has the pid of the daemon that wrote the note, and was created later."""
    state = tmp_path / "state"
    state.mkdir()
    with (
        (state / "daemon.lock").open("w") as lock,
        subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as stranger,
    ):
        if held:
            fcntl.flock(lock, fcntl.LOCK_EX)
        age = psutil.Process(stranger.pid).create_time() - psutil.boot_time()
        note = {"pid": stranger.pid, "created": age - 60, "url": "http://x", "version": "1"}
        (state / "daemon.json").write_text(json.dumps(note))
        env = _clean_environment(tmp_path) | {"DRAFTD_STATE_DIR": str(state)}
        done = run("down", env=env)
        assert done.returncode == 3
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.fault(26)
def test_running_out_of_descriptors_passes_by(tmp_path: Path, measured: Callable[[float], None]) -> None:
    """Clients without a key take all the connections they can: the daemon keeps enough for its workers."""
    with up(tmp_path, "a", limit=("ulimit", "-n", "64")) as daemon:
        old = daemon.row()
        idle = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(80)]
        began = time.monotonic()
        os.killpg(daemon.child(), signal.SIGKILL)
        daemon.until("worker ready", 2)
        assert time.monotonic() - began < LIMIT / 2
        daemon.until("file descriptors are running short; new connections wait")
        assert [connection for connection in idle if _is_closed(connection)] == []
        waiting = socket.create_connection(("127.0.0.1", daemon.port))
        waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not _is_closed(waiting)
        began = time.monotonic()
        for connection in idle:
            connection.close()
        waiting.settimeout(LIMIT)
        assert waiting.recv(100).startswith(b"HTTP/1.1 200")
        measured(time.monotonic() - began)
        waiting.close()
        new = daemon.row()
        assert (new["state"], new["restarts"]) == ("ready", old["restarts"] + 1)


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side has sent or closed anything within a tenth of a second or less."""
    connection.settimeout(0.001)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False


@pytest.mark.fault(55)
def test_a_swept_state_folder_is_taken_again(tmp_path: Path) -> None:
    with up(tmp_path, "a") as daemon:
        shutil.rmtree(daemon.state_dir)
        daemon.until("the state folder had been swept, and is taken again")
        second = daemon.run("up", "--plain", "--port", str(free_ports()))
        assert second.returncode != 0
        assert f"pid {daemon.process.pid}" in second.stderr
        assert daemon.rows()[0]["state"] == "ready"
        os.killpg(daemon.child(), signal.SIGKILL)
        daemon.until("worker ready", 2)
        assert "fake server" in (daemon.state_dir / "logs" / "a.log").read_text()


def _faketime() -> str:
    """The library that moves the wall clock of a process, and of its children."""
    found = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if found is None:
        pytest.skip("libfaketime is not installed (Debian's package faketime)")
    return str(found)


@pytest.mark.fault(45)
@pytest.mark.thorough
def test_a_jump_of_the_wall_clock_moves_nothing(tmp_path: Path, measured: Callable[[float], None]) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    env = {
        "LD_PRELOAD": _faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    tables = "[restart]\ninitial_delay = 0.5\nstable_delay = 0.5\nmax_delay = 0.5\n"
    tables += "[health]\ninterval = 0.1\nstall_timeout = 5\n"
    # Only the daemon's clock: Python's sleep fails under this library.
    profile = fake(tables=tables).replace("command = [", 'command = ["env", "-u", "LD_PRELOAD", ')
    with up(tmp_path, "a", profile=profile, env=env) as daemon:
        for count, days in enumerate((1, -1), start=1):
            before = daemon.row()
            with daemon.ask("[[slow 0.1]]", stream=True) as stream:
                clock.write_text(f"{days:+}d\n")  # in the middle of a request and of health checks
                assert stream.read().endswith(b"data: [DONE]\n\n")
            kept = ("state", "pid", "restarts", "since")
            assert [daemon.row()[key] for key in kept] == [before[key] for key in kept]
            os.killpg(daemon.child(), signal.SIGKILL)
            told = datetime.fromisoformat(daemon.until("worker backoff", count)["timestamp"])
            began = time.monotonic()
            assert abs(told - datetime.now(UTC) - timedelta(days=days)) < timedelta(minutes=1)
            clock.write_text("+0\n")  # in the middle of a delay, which this request waits out
            daemon.ask("hi").close()
            daemon.until("worker ready", count + 1)
            measured(time.monotonic() - began)
            assert 0.4 < time.monotonic() - began < 8


@pytest.mark.fault(23)
def test_a_changed_file_is_a_reload_and_a_broken_one_is_not(tmp_path: Path) -> None:
    with up(tmp_path, "a") as daemon:
        (tmp_path / "profiles" / "b.toml").write_text("model = 1\n")
        refused = daemon.until("reload refused; the old profiles stay in force")
        assert "b.toml:1: model" in refused["reason"][1]
        (tmp_path / "profiles" / "b.toml").write_text(fake())
        daemon.until("worker ready", 2)


@pytest.mark.fault(23)
def test_a_folder_that_is_swapped_for_another_is_a_reload(tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    with up(tmp_path, "a") as daemon:
        for count, name in enumerate(
            ("b", "c"), start=2
        ):  # the second time it is not the folder of the start
            shutil.copytree(folder, tmp_path / "new")
            (tmp_path / "new" / f"{name}.toml").write_text(fake())
            folder.rename(tmp_path / f"old{count}")
            (tmp_path / "new").rename(folder)
            daemon.until("worker ready", count)


@pytest.mark.fault(19)
def test_a_second_sigterm_does_not_wait_for_open_requests(tmp_path: Path) -> None:
    with up(tmp_path, "a") as daemon, daemon.ask("[[slow 60]]", stream=True) as stream:
        assert b"one" in stream.readline()
        daemon.process.terminate()
        assert daemon.until("draftd stops")["open_requests"] == 1
        daemon.process.terminate()
        assert daemon.process.wait(LIMIT) == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["status"], 3, "no daemon is running"),
        (["down"], 3, "no daemon is running"),
        (["check", "--profiles", "/nowhere"], 2, "/nowhere does not exist"),
        (["up", "--port", "99999"], 2, "--port: port: it must be at most 65535"),
        (["up", "--demo", "speculative"], 2, "'speculative' fits several profiles"),
        (["up", "--demo", "nope"], 2, "'nope' fits no profile; there are: qwen2.5-3b-speculative-auto"),
        (["up", "--demo", "--host", "0.0.0.0"], 2, "set DRAFTD_API_KEY"),
    ],
)
def test_bad_input_gets_a_clear_error_and_its_exit_code(
    tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    env = _clean_environment(tmp_path) | {"DRAFTD_STATE_DIR": str(tmp_path / "state")}
    done = run(*words, env=env)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert message in done.stderr


def test_every_verb_has_help_with_an_example() -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["--help"]).stdout
    for verb in VERBS:
        assert f" {verb} " in shown
        names = [name for name, what in VERBS.items() if what == VERBS[verb]]  # a verb may have two
        told = runner.invoke(app, [verb, "--help"]).stdout
        assert any(f"Example: draftd {name}" in told for name in names)
        assert "<bool>" not in told


def test_a_verb_costs_no_more_than_its_own_imports() -> None:
    code = "import sys, draftd.cli as cli; {}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    bare, status = (
        set(subprocess.check_output([sys.executable, "-c", code.format(step)], text=True).split())
        for step in ("0", "cli.Commands()['status']")
    )
    assert {"asyncio", "pydantic", "structlog"}.isdisjoint(bare)
    assert {"aiohttp", "structlog", "packaging"}.isdisjoint(status)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "draftd"], [str(Path(sys.executable).parent / "draftd")]]
)
def test_it_has_one_name_however_it_is_started(command: list[str]) -> None:
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0
    assert "Usage: draftd [OPTIONS] COMMAND" in done.stdout
