"""Workers that misbehave in ways that take a while, with the scripted server and short limits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from draftd.workers import process
from tests.harness import QUICK, fake, kill, play_engine, serving

Measured = Callable[[float], None]
HEALTH = QUICK + "[health]\ninterval = 0.1\ntimeout = 0.3\nfailures = 2\n"
DETECTION = 0.1 + 2 * 0.3  # seconds until HEALTH has noticed a hung worker
GRACE = 0.3
ECHO_SERVER = Path(__file__).parents[1] / "echo_server.py"


@pytest.mark.fault(6)
async def test_a_server_that_never_gets_ready_fails_at_last(tmp_path: Path) -> None:
    tables = "[restart]\ninitial_delay = 0.05\nmax_failures = 2\n[health]\nstart_timeout = 0.8\n"
    async with serving(tmp_path, {"a": fake("--never-ready", tables=tables)}, ready=False) as served:
        await served.until_state("a", "failed")
        row = served.row("a")
        assert (row["last_exit"]["reason"], row["restarts"]) == ("start_timeout", 1)
        answer = await served.ask("a")
        assert answer.status == 503
        assert "fake server of fake on port" in answer.json["error"]["message"]


@pytest.mark.fault(57)
@pytest.mark.thorough
async def test_a_worker_that_never_gets_ready_lets_others_start_and_says_what_it_answered(
    tmp_path: Path, measured: Measured
) -> None:
    """It listens, answers 503, and logs each request; its start timeout would let it do so for 900 seconds."""
    tables = "[restart]\nmax_failures = 1\n[health]\nload_stall_timeout = 4\n"
    stuck = fake("--never-ready", "--chatty", tables=tables)
    began = time.monotonic()
    async with serving(tmp_path, {"a": stuck, "b": fake()}, ready=False) as served:
        await served.until(lambda: served.row("b")["pid"] is not None)  # it loads
        assert served.state("a") == "starting"
        await served.until_state("b", "ready")
        await served.until_state("a", "failed")
        measured(time.monotonic() - began)
        last = served.row("a")["last_exit"]
        assert last["reason"] == "no_progress"
        assert "HTTP 503" in last["lines"][-1]
        assert "still loading" in (await served.ask("a")).json["error"]["message"]
        assert (await served.ask("b")).status == 200


@pytest.mark.one_in(2)
@pytest.mark.fault(57)
@pytest.mark.parametrize("sign", ["--work", "--speak"])
async def test_a_load_that_takes_long_and_gets_on_is_left_alone(tmp_path: Path, sign: str) -> None:
    tables = QUICK + "[health]\nload_stall_timeout = 0.8\n"
    async with serving(tmp_path, {"a": fake(sign, "1.6", tables=tables)}) as served:
        assert served.row("a")["restarts"] == 0
        assert served.row("a")["start_seconds"] > 1.6


@pytest.mark.fault(56)
async def test_a_server_that_answers_what_nobody_can_read_is_trouble_for_itself_only(tmp_path: Path) -> None:
    tables = "[restart]\nmax_failures = 1\n[health]\nload_stall_timeout = 1\n"
    async with serving(tmp_path, {"a": fake("--nested", tables=tables), "b": fake()}, ready=False) as served:
        await served.until_state("b", "ready")
        await served.until_state("a", "failed")
        assert "HTTP 200: b'[[[[" in served.row("a")["last_exit"]["lines"][-1]
        assert (await served.ask("b")).status == 200


@pytest.mark.fault(58)
async def test_a_worker_that_floods_its_output_does_not_delay_its_neighbours(
    tmp_path: Path, measured: Measured
) -> None:
    async with serving(tmp_path, {"a": fake("--flood"), "b": fake()}) as served:
        taken: list[float] = []
        for _ in range(20):
            began = time.monotonic()
            assert (await served.ask("b")).status == 200
            taken.append(time.monotonic() - began)
        usual = statistics.median(taken)  # a busy machine delays one or the other
        measured(usual)
        assert (
            usual < 0.3
        )  # a thousandth is usual; with a pipe that is read without end it is nearly a second
        assert served.state("a") == "ready"
        assert len((await served.get("/api/logs/a?lines=1000&raw=1")).text.splitlines()) == 1000


@pytest.mark.fault(9)
@pytest.mark.parametrize("foreign", [False, True])
async def test_a_worker_that_hangs_in_mid_stream_ends_the_stream_as_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: bool, measured: Measured
) -> None:
    """Our engine then fails its health checks; another server may be at work, and only `stall_timeout` can tell."""
    play_engine(monkeypatch)
    ours = f'model = "fake"\n{HEALTH}'
    profile = fake(tables=f"{HEALTH}stall_timeout = 0.4\n") if foreign else ours
    async with serving(tmp_path, {"a": profile}, warm_spare=False, stop_grace=GRACE) as served:
        began = time.monotonic()
        answer = await served.ask("a", "[[hang]]", stream=True)
        measured(time.monotonic() - began)
        assert time.monotonic() - began < DETECTION + GRACE + 1.0
        assert answer.cut
        assert answer.events[-1]["error"]["code"] == "worker_lost"
        await served.until_state("a", "ready")
        assert served.row("a")["last_exit"]["reason"] == ("stalled" if foreign else "unhealthy")


@pytest.mark.fault(121)
async def test_another_server_whose_only_thread_is_at_work_is_left_alone(tmp_path: Path) -> None:
    command = [sys.executable, str(ECHO_SERVER), "--single", "--port", "{port}"]
    profile = f'model = "own"\ncommand = {json.dumps(command)}\n{HEALTH}'
    async with serving(tmp_path, {"a": profile}) as served:
        began = time.monotonic()
        answer = await served.post("/v1/embeddings?order=slow", {"model": "a"})
        assert time.monotonic() - began > 2 * DETECTION
        assert (answer.status, served.row("a")["restarts"]) == (200, 0)
        kill(served.row("a")["pid"], signal.SIGSTOP)  # no request is open now
        await served.until(lambda: served.state("a") != "ready")


@pytest.mark.fault(10)
async def test_a_wedged_generation_is_ended_though_health_is_well(tmp_path: Path, measured: Measured) -> None:
    async with serving(tmp_path, {"a": fake(tables=HEALTH + "stall_timeout = 0.5\n")}) as served:
        began = time.monotonic()
        answer = await served.ask("a", "[[wait 60]]")
        measured(time.monotonic() - began)
        assert answer.status == 502
        await served.until_state("a", "ready")
        assert served.row("a")["last_exit"]["reason"] == "stalled"


@pytest.mark.fault(10)
@pytest.mark.parametrize("sign", ["prompt", "heartbeat", "slow"])
async def test_a_slow_request_that_gets_on_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    """Prompt progress, the engine's own reports, and tokens that come slowly are all signs of life."""
    play_engine(monkeypatch)
    profile = f'model = "fake"\n{HEALTH}stall_timeout = 1\n'
    async with serving(tmp_path, {"a": profile}, warm_spare=False) as served:
        began = time.monotonic()
        answer = await served.ask("a", f"[[{sign} {0.3 if sign == 'slow' else 1.5}]]")
        assert (answer.status, served.row("a")["restarts"]) == (200, 0)
        assert time.monotonic() - began > 1.4


@pytest.mark.fault(11)
async def test_a_dead_generation_thread_is_a_502_and_a_new_child(tmp_path: Path, measured: Measured) -> None:
    async with serving(tmp_path, {"a": fake(tables=HEALTH)}) as served:
        began = time.monotonic()
        answer = await served.ask("a", "[[thread-died]]")
        assert (answer.status, answer.json["error"]["code"]) == (502, "worker_lost")
        await served.until(lambda: served.state("a") != "ready", limit=DETECTION)
        measured(time.monotonic() - began)
        await served.until(lambda: served.row("a")["restarts"] == 1 and served.state("a") == "ready")


@pytest.mark.fault(12)
async def test_a_slow_load_is_waited_for(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake("--load", "1", tables=HEALTH)}) as served:
        row = served.row("a")
        assert (row["state"], row["restarts"]) == ("ready", 0)
        assert row["start_seconds"] >= 1


@pytest.mark.one_in(2)
@pytest.mark.fault(14)
@pytest.mark.parametrize(("order", "limit"), [("eat 120", "90MB"), ("metal 9000", "8GB")])
async def test_a_worker_over_its_memory_limit_is_drained_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, limit: str
) -> None:
    """Its own memory, and GPU memory, of which only the engine knows."""
    play_engine(monkeypatch)
    profile = f'model = "fake"\n{HEALTH}[limits]\nmemory = "{limit}"\n'
    async with serving(tmp_path, {"a": profile}, warm_spare=False) as served:
        old = served.row("a")["pid"]
        eating = asyncio.create_task(served.ask("a", f"[[{order}]]", stream=True, max_tokens=10))
        await served.until_state("a", "stopping")
        assert served.row("a")["memory_bytes"] > (90e6 if limit == "90MB" else 8e9)
        assert not eating.done()
        assert (await served.ask("a")).status == 200  # by the next child
        assert (await eating).events[-1] == "[DONE]"
        assert served.row("a")["pid"] != old
        assert served.row("a")["last_exit"]["reason"] == "memory"
        assert served.row("a")["memory_bytes"] < 90e6
        assert (await served.metrics())['draftd_worker_restarts_total{profile="a",reason="memory"}'] == 1


@pytest.mark.fault(18)
async def test_a_full_disk_for_logs_does_not_stop_serving(tmp_path: Path) -> None:
    logs = tmp_path / "state" / "logs"
    logs.mkdir(parents=True)
    with _tiny_disk(logs):
        (logs / "filler").write_bytes(b"x" * 16 * 1024)
        async with serving(tmp_path, {"a": fake("--chatter", str(2**20))}) as served:
            for _ in range(3):
                assert (await served.ask("a")).status == 200
            assert (await served.metrics())['draftd_log_write_errors_total{profile="a"}'] >= 1
            assert "Draft tokens accepted" in (await served.get("/api/logs/a?raw=1")).text


@contextmanager
def _tiny_disk(folder: Path) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", "size=16k,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small tmpfs cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.fault(54)
async def test_workers_start_though_the_folder_that_the_daemon_was_started_in_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "started"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(process, "STARTED_IN", str(folder))
    async with serving(tmp_path, {"a": fake()}) as served:
        folder.rmdir()
        old = served.row("a")["pid"]
        kill(old, signal.SIGKILL)
        await served.until(lambda: served.state("a") == "ready" and served.row("a")["pid"] != old)


@pytest.mark.fault(46)
@pytest.mark.thorough
async def test_workers_killed_together_come_back_one_load_at_a_time(tmp_path: Path) -> None:
    async with serving(tmp_path, {name: fake("--load", "0.3") for name in "abc"}) as served:
        old = {name: served.row(name)["pid"] for name in "abc"}
        loading: list[int] = []

        def back() -> bool:
            rows = served.daemon.workers()
            loading.append(sum(row["state"] == "starting" and row["pid"] is not None for row in rows))
            return all(row["state"] == "ready" and row["pid"] != old[row["name"]] for row in rows)

        for pid in old.values():
            kill(pid, signal.SIGKILL)
        await served.until(back)
        assert max(loading) == 1
