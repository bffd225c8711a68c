"""What ends a daemon, and what is left of it: never nothing. In processes of their own."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from draftd import app
from draftd.sudden_end import CRASH, WORDS, stacks, stacks_kept
from draftd.telemetry.history import History
from tests.forked import LIMIT
from tests.harness import fake, free_ports, serving
from tests.test_cli import DRAFTD, _clean_environment, up


@pytest.mark.fault(204)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=["killed", "crashed"])
def test_the_next_daemon_tells_of_one_that_could_not_stop(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path, "a") as daemon:
        daemon.process.send_signal(number)
        daemon.process.wait(LIMIT)
        told = daemon.run("status").stderr
        assert f"the last one, pid {daemon.process.pid}, could not stop in order" in " ".join(told.split())
    (tmp_path / "profiles" / "a.toml").unlink()
    (tmp_path / "profiles").rmdir()
    with up(tmp_path, "a") as after:
        line = after.until("the daemon before this one could not stop in order")
        assert (line["pid"], line["reason"]) == (daemon.process.pid, WORDS)
        crash = line.get("exception", "")
        assert ("Segmentation fault" in crash) == (number == signal.SIGSEGV)
        assert ("runners.py" in crash) == (number == signal.SIGSEGV)
        assert stacks(after.state_dir) == ""  # its own, and it has not crashed
        after.process.terminate()
        assert after.process.wait(LIMIT) == 0
        assert list(after.state_dir.glob("daemon.*")) == [after.state_dir / "daemon.lock"]
        assert "could not stop" not in after.run("status").stderr


@pytest.mark.fault(205)
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGQUIT])
@pytest.mark.one_in(2)
def test_a_signal_that_nobody_expects_ends_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path, "a") as daemon:
        daemon.process.send_signal(number)
        assert daemon.until("draftd stops")["because"] == number.name
        assert daemon.process.wait(LIMIT) == 0


def _until_served(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LIMIT
    while True:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=LIMIT):
            return
        assert process.poll() is None, "the daemon has ended"
        assert time.monotonic() < deadline
        time.sleep(0.05)  # nothing tells


@contextmanager
def _unheard(tmp_path: Path, streams: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`draftd up --plain` whose streams a shell has replaced."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "a.toml").write_text(fake())
    port = free_ports()
    options = ["--plain", "--port", str(port), "--base-port", str(free_ports(2))]
    folders = ["--profiles", str(tmp_path / "profiles"), "--state-dir", str(tmp_path / "state")]
    command = ["bash", "-c", f'exec "$@" {streams}', "bash", *DRAFTD, "up", *options, *folders]
    with subprocess.Popen(command, env=_clean_environment(tmp_path), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()  # nobody reads it any more
        try:
            yield process, port
        finally:
            process.terminate()
            assert process.wait(LIMIT) == 0


@pytest.mark.one_in(3)
@pytest.mark.fault(203)
@pytest.mark.parametrize("streams", ["", "2> /dev/full", "<&- >&- 2>&-"], ids=["unread", "full", "closed"])
def test_a_daemon_that_nobody_listens_to_serves_on(tmp_path: Path, streams: str) -> None:
    with _unheard(tmp_path, streams) as (process, port):
        _until_served(port, process)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=LIMIT) as answer:
            assert answer.status == 200
        assert process.poll() is None


@pytest.mark.fault(206)
async def test_a_task_of_the_daemon_that_fails_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[History] = []
    monkeypatch.setattr(app, "AGAIN", 0.01)

    async def run(self: History) -> None:
        tries.append(self)
        if len(tries) < 3:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(History, "run", run)
    async with serving(tmp_path, {"a": fake()}) as served:
        while len(tries) < 3:
            assert (await served.ask("a")).status == 200


@pytest.mark.fault(206)
async def test_a_task_that_fails_as_it_is_cancelled_is_not_taken_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "AGAIN", 0.01)
    tries: list[None] = []

    async def work() -> None:
        tries.append(None)
        if len(tries) > 1:
            return
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("while it is cleared up")

    task = asyncio.create_task(app._going_on(work))
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(LIMIT):
        await asyncio.wait([task])
    assert len(tries) == 1


@pytest.mark.fault(204)
def test_where_stacks_are_kept_by_somebody_else_those_of_an_earlier_crash_are_not_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faulthandler, "is_enabled", lambda: True)
    (tmp_path / CRASH).write_text("Fatal Python error")
    with stacks_kept(tmp_path):
        assert stacks(tmp_path) == ""


def test_the_stacks_of_a_crash_hold_no_values_and_a_link_is_not_followed(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from draftd.sudden_end import stacks_kept\n"
        "def secret(prompt):\n    with stacks_kept(pathlib.Path(sys.argv[1])): os.abort()\n"
        "secret('canary')"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    state = tmp_path / "state"
    state.mkdir()
    ended = subprocess.run([sys.executable, "-c", code, str(state)], check=False)
    assert ended.returncode == -signal.SIGABRT
    assert "Aborted" in stacks(state)
    assert "canary" not in stacks(state)
    (state / CRASH).unlink()
    (state / CRASH).symlink_to(elsewhere)
    assert subprocess.run([sys.executable, "-c", code, str(state)], check=False).returncode == -signal.SIGABRT
    assert elsewhere.read_text() == "mine"
