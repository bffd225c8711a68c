"""Children that die, hang, fail or are silent, under a whole daemon: what clients get, and what follows."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from draftd.workers.states import Backoff
from tests.harness import QUICK, alive, fake, free_ports, kill, play_engine, serving, until_gone


@pytest.mark.fault(1)
async def test_a_killed_worker_is_noticed_at_once_and_a_new_request_waits_for_the_next(
    tmp_path: Path, measured: Callable[[float], None]
) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        old = served.row("a")["pid"]
        began = time.monotonic()
        kill(old, signal.SIGKILL)
        await served.until_state("a", "backoff")
        measured(time.monotonic() - began)
        assert time.monotonic() - began < 0.1
        assert (await served.ask("a")).status == 200
        row = served.row("a")
        assert row["pid"] != old
        assert (row["restarts"], row["last_exit"]["code"], row["last_exit"]["reason"]) == (1, -9, "exit")
        assert (await served.metrics())['draftd_worker_restarts_total{profile="a",reason="exit"}'] == 1


@pytest.mark.fault(2, 3)
@pytest.mark.parametrize("order", ["die-mid-stream", "half-event", "no-done", "error-event"])
async def test_a_stream_cut_short_ends_as_an_error_and_never_as_complete(
    tmp_path: Path, order: str, measured: Callable[[float], None]
) -> None:
    log = tmp_path / "requests"
    async with serving(tmp_path, {"a": fake("--log-requests", str(log))}) as served:
        began = time.monotonic()
        answer = await served.ask("a", f"[[{order}]]", stream=True)
        measured(time.monotonic() - began)
        assert time.monotonic() - began < 1.0
        await served.until_state("a", "ready")
        assert log.read_text().count(order) == 1
        assert answer.cut
        assert answer.content.startswith("one two")
        assert answer.events[-1]["error"]["type"] == "server_error"
        assert "[DONE]" not in answer.events


@pytest.mark.fault(4)
async def test_a_worker_that_dies_before_headers_is_502_and_nothing_is_replayed(tmp_path: Path) -> None:
    log = tmp_path / "requests"
    async with serving(tmp_path, {"a": fake("--log-requests", str(log))}) as served:
        answer = await served.ask("a", "[[die-before-headers]]", stream=True)
        assert (answer.status, answer.json["error"]["code"]) == (502, "worker_lost")
        await served.until_state("a", "ready")
        assert log.read_text().count("die-before-headers") == 1


async def test_the_workers_errors_become_honest_ones(tmp_path: Path) -> None:
    statuses = [(400, 400), (404, 400), (413, 413), (429, 429), (500, 502), (503, 503)]
    async with serving(tmp_path, {"a": fake()}) as served:
        for theirs, ours in statuses:
            answer = await served.ask("a", f"[[status {theirs}]]")
            assert (answer.status, answer.json["error"]["message"]) == (ours, f"asked for status {theirs}")


@pytest.mark.fault(7)
async def test_a_crash_loop_ends_as_failed_and_leaves_others_alone(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    tables = "[restart]\ninitial_delay = 0.15\nmax_delay = 0.6\n"
    profiles = {"a": fake("--exit-file", str(broken), tables=tables), "b": fake()}
    async with serving(tmp_path, profiles, ready=False) as served:
        delays: dict[float, float] = {}
        worker = served.daemon.supervisor.worker("a")

        def given_up() -> bool:
            if isinstance(worker.state, Backoff):
                delays[worker.state.since] = worker.state.deadline - worker.state.since
            return served.state("a") == "failed"

        await served.until(given_up)
        stretch = [delay / base for delay, base in zip(delays.values(), (0.15, 0.3, 0.6, 0.6), strict=True)]
        assert min(stretch) > 1
        assert max(stretch) < 1.2
        await served.until_state("b", "ready")
        answer = await served.ask("a")
        assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")
        assert "made of cheese" in answer.json["error"]["message"]
        assert "made of cheese" in "".join(served.row("a")["last_exit"]["lines"])
        assert served.row("b")["restarts"] == 0
        broken.unlink()
        assert (await served.post("/api/workers/a/restart")).status == 202
        await served.until_state("a", "ready")


@pytest.mark.fault(5)
async def test_a_request_that_witnesses_a_failed_start_is_told_when_to_come_again(tmp_path: Path) -> None:
    tables = "[restart]\ninitial_delay = 30\n"
    profile = fake("--exit-at-start", "4", top="autostart = false", tables=tables)
    async with serving(tmp_path, {"a": profile}, ready=False) as served:
        answer = await served.ask("a")
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 30


@pytest.mark.fault(8)
@pytest.mark.parametrize("flags", [(), ("--ignore-sigterm",)])
async def test_a_hung_worker_is_found_by_its_health_check_and_replaced(
    tmp_path: Path, flags: tuple[str, ...], measured: Callable[[float], None]
) -> None:
    """Interval + failures x timeout = 0.5 s; a child that hears SIGTERM, woken for it, and one that does not."""
    tables = QUICK + "[health]\ninterval = 0.1\ntimeout = 0.2\nfailures = 2\n"
    async with serving(tmp_path, {"a": fake(*flags, tables=tables)}, stop_grace=1.0) as served:
        old = served.row("a")["pid"]
        began = time.monotonic()
        kill(old, signal.SIGSTOP)
        await served.until_state("a", "stopping")
        measured(time.monotonic() - began)
        assert time.monotonic() - began < 0.5 + 0.1
        await served.until(lambda: served.state("a") == "ready" and served.row("a")["pid"] != old)
        assert served.row("a")["last_exit"]["reason"] == "unhealthy"
        assert served.row("a")["last_exit"]["code"] == (-signal.SIGKILL if flags else -signal.SIGTERM)
        assert not alive(old)


class Stranger:
    """A server that answers every request properly, as if it were a worker, and keeps what it was sent."""

    def __init__(self) -> None:
        self.heard = b""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(10_000):
            self.heard += data
            writer.write(b'HTTP/1.0 200 OK\r\nContent-Length: 28\r\n\r\n{"choices": [{"index": 0}]}  ')
        writer.close()


@pytest.mark.fault(13)
async def test_a_strangers_port_is_skipped_named_and_never_sent_a_prompt(tmp_path: Path) -> None:
    """At the start, and when it takes the port of a child that has died."""
    base, stranger = free_ports(4), Stranger()
    async with (
        await asyncio.start_server(stranger.answer, "127.0.0.1", base),
        serving(tmp_path, {"a": fake()}, base_port=base) as served,
    ):
        row = served.row("a")
        assert row["port"] == base + 1
        assert f"port {base} is held by" in row["notes"][0]
        assert str(psutil.Process().pid) in row["notes"][0]
        assert (await served.ask("a")).status == 200
        kill(row["pid"], signal.SIGKILL)
        await served.until_state("a", "backoff")
        async with await asyncio.start_server(stranger.answer, "127.0.0.1", base + 1):
            assert (await served.ask("a")).status == 200
            assert served.row("a")["port"] == base + 2
            assert f"port {base + 1} is held by" in served.row("a")["notes"][0]
    assert stranger.heard == b""


@pytest.mark.fault(15, 16)
async def test_a_child_that_ignores_sigterm_is_killed_with_its_grandchild(
    tmp_path: Path, measured: Callable[[float], None]
) -> None:
    pids = tmp_path / "grandchild"
    profile = fake("--ignore-sigterm", "--grandchild", str(pids))
    async with serving(tmp_path, {"a": profile}, stop_grace=0.3) as served:
        child, grandchild = served.row("a")["pid"], int(pids.read_text())
        assert alive(grandchild)
        began = time.monotonic()
        await served.post("/api/workers/a/stop")
        await served.until_state("a", "stopped", limit=1.3)
        measured(time.monotonic() - began)
        await until_gone(grandchild)
        assert not alive(child)


@pytest.mark.fault(16)
async def test_a_crash_leaves_no_grandchild(tmp_path: Path) -> None:
    pids = tmp_path / "grandchild"
    async with serving(tmp_path, {"a": fake("--grandchild", str(pids))}) as served:
        grandchild = int(pids.read_text())
        kill(served.row("a")["pid"], signal.SIGKILL)
        await served.until_state("a", "backoff", "starting", "ready")
        await until_gone(grandchild, limit=2)


async def test_a_silent_answer_is_stalled_unless_the_engine_says_that_it_gets_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that would run mlx_lm, played by the scripted server."""
    play_engine(monkeypatch)
    limits = QUICK + "[health]\ninterval = 0.05\nstall_timeout = 0.6\n"
    async with serving(tmp_path, {"a": f'model = "fake"\n{limits}'}, warm_spare=False) as served:
        well = await served.ask("a", "[[heartbeat 1.5]]")
        assert (well.status, served.row("a")["restarts"]) == (200, 0)
        wedged = await served.ask("a", "[[wait 30]]")
        assert (wedged.status, wedged.json["error"]["code"]) == (502, "worker_lost")
        await served.until(lambda: served.row("a")["restarts"] == 1)
        assert served.row("a")["last_exit"]["reason"] == "stalled"
