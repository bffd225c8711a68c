"""The daemon as a whole, with scripted children: what clients, the metrics and the process table show."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import psutil
import pytest

from draftd.app import run
from draftd.daemon import Daemon
from draftd.errors import AlreadyRunningError, ConfigError, DraftdError
from draftd.machine_memory import memory_share
from draftd.pressure import Pressure
from draftd.telemetry.told import Told
from draftd.workers.states import Backoff
from tests.harness import LIMIT, QUICK, alive, chat, fake, free_ports, kill, play_engine, serving, until_gone


async def test_three_workers_stand_on_consecutive_ports_and_answer_by_name(tmp_path: Path) -> None:
    base = free_ports(3)
    async with serving(tmp_path, {n: fake() for n in ("a", "b", "c")}, base_port=base) as served:
        assert [served.row(n)["port"] for n in ("a", "b", "c")] == [base, base + 1, base + 2]
        for name in ("a", "b", "c"):
            whole = await served.ask(name)
            assert (whole.status, whole.json["model"]) == (200, name)
            stream = await served.ask(f"speculative/{name}", stream=True)
            assert stream.content == "one two three four five"
            assert {e["model"] for e in stream.events if e != "[DONE]"} == {f"speculative/{name}"}
            assert stream.events[-1] == "[DONE]"
            assert stream.events[-2]["choices"][0]["finish_reason"] == "stop"


async def test_an_answer_in_one_piece_has_what_openai_promises(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        body = (await served.ask("a", max_tokens=3)).json
        assert body["choices"][0]["message"] == {"role": "assistant", "content": "one two three"}
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        assert body["object"] == "chat.completion"
        text = await served.post("/v1/completions", {"model": "a", "prompt": "x", "max_tokens": 2})
        assert text.json["choices"][0]["text"] == "one two"
        assert text.json["object"] == "text_completion"


async def test_usage_is_streamed_only_to_who_asked(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        without = await served.ask("a", stream=True, stream_options={})
        assert not any("usage" in e for e in without.events if e != "[DONE]")
        asked = await served.ask("a", stream=True, stream_options={"include_usage": True})
        assert asked.events[-2]["usage"]["completion_tokens"] == 5


async def test_models_status_and_health_tell_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("draftd.daemon.pressure", lambda source: Pressure.NORMAL)
    async with serving(tmp_path, {"a": fake(top='aliases = ["x/y"]'), "b": fake()}) as served:
        models = (await served.get("/v1/models")).json
        assert [m["id"] for m in models["data"]] == ["a", "b"]
        assert (await served.get("/v1/models/x/y")).json["id"] == "a"
        assert (await served.get("/v1/models/none")).json["error"]["code"] == "model_not_found"
        status = (await served.get("/api/status")).json
        keys = (
            "name state pid port model draft_model drafters num_draft_tokens auto_draft since restarts last_exit"
            " memory_bytes queue requests acceptance tokens_per_second"
        )
        assert set(keys.split()) <= set(status["workers"][0])
        assert status["warm_spare"] is None  # unless asked for
        assert status["memory"] == {"budget_bytes": memory_share(), "pressure": "normal"}
        assert (await served.metrics())["draftd_memory_pressure"] == 1
        assert (await served.get("/readyz")).status == 200
        assert (await served.get("/healthz")).json == {"status": "ok"}
        assert (await served.get("/nowhere")).json["error"]["code"] == "not_found"


async def test_readyz_waits_for_workers_that_start_by_themselves_only(tmp_path: Path) -> None:
    profiles = {"slow": fake("--load", "30"), "asleep": fake(top="autostart = false")}
    async with serving(tmp_path, profiles, ready=False) as served:
        answer = await served.get("/readyz")
        assert (answer.status, answer.json["waiting"]) == (503, {"slow": "starting"})


async def test_a_sleeping_worker_is_started_by_its_first_request(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake(top="autostart = false")}) as served:
        assert served.state("a") == "asleep"
        assert (await served.ask("a")).status == 200


async def test_a_worker_without_requests_sleeps_and_wakes(tmp_path: Path) -> None:
    tables = QUICK + "[health]\ninterval = 0.05\n"
    async with serving(tmp_path, {"a": fake(top="idle_timeout = 0.2", tables=tables)}) as served:
        await served.until_state("a", "asleep")
        assert (await served.ask("a")).status == 200
        assert served.row("a")["restarts"] == 0


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


@pytest.mark.parametrize(
    ("upstream", "expected"), [(400, 400), (404, 400), (413, 413), (429, 429), (500, 502), (503, 503)]
)
async def test_the_workers_errors_become_honest_ones(tmp_path: Path, upstream: int, expected: int) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        answer = await served.ask("a", f"[[status {upstream}]]")
        assert (answer.status, answer.json["error"]["message"]) == (expected, f"asked for status {upstream}")


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


@pytest.mark.fault(48)
async def test_requests_are_served_in_order_one_at_a_time_and_the_queue_shows(tmp_path: Path) -> None:
    profile = fake(tables=QUICK + "[limits]\nconcurrency = 1\nqueue = 2\n")
    async with serving(tmp_path, {"a": profile}) as served, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(served.ask("a", "[[slow 0.1]]"))
        done: list[int] = []

        async def later(number: int) -> None:
            assert (await served.ask("a")).status == 200
            done.append(number)

        await served.until_queue("a", active=1)
        for number in range(2):
            tasks.create_task(later(number))
            await served.until_queue("a", waiting=number + 1)
        assert (await served.metrics())['draftd_queue_depth{profile="a"}'] == 2
        full = await served.ask("a")
        assert (full.status, full.json["error"]["code"]) == (429, "queue_full")
        assert int(full.headers["Retry-After"]) > 0
        assert (await first).status == 200
    assert done == [0, 1]


@pytest.mark.fault(30)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.alone
async def test_a_client_that_leaves_frees_the_worker(tmp_path: Path, stream: bool) -> None:
    profile = fake(tables=QUICK + "[limits]\nconcurrency = 1\n")
    async with serving(tmp_path, {"a": profile}) as served:
        body = chat("[[slow 0.2]]", model="a", stream=stream, max_tokens=10)
        leaving = asyncio.create_task(served.post("/v1/chat/completions", body))
        waiting = asyncio.create_task(served.post("/v1/chat/completions", body))
        await served.until_queue("a", waiting=1)
        waiting.cancel()
        await served.until_queue("a")
        leaving.cancel()
        await served.until_queue("a", active=0)
        began = time.monotonic()
        assert (await served.ask("a")).status == 200
        assert time.monotonic() - began < 1.0


async def test_a_waiting_stream_gets_comments_and_still_its_answer(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}, keepalive_interval=0.1) as served:
        answer = await served.ask("a", "[[wait 0.35]]", stream=True)
        assert answer.text.startswith(": keepalive\n\n")
        assert answer.content == "one two three four five"


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


async def test_orders_stop_and_start_a_worker(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        await served.post("/api/workers/a/stop")
        await served.until_state("a", "stopped")
        refused = await served.ask("a")
        assert (refused.status, refused.json["error"]["code"]) == (503, "worker_stopped")
        await served.post("/api/workers/a/start")
        await served.until_state("a", "ready")
        assert (await served.post("/api/workers/a/dance")).status == 404
        assert (await served.post("/api/workers/none/stop")).status == 404


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


async def test_workers_load_one_after_the_other(tmp_path: Path) -> None:
    loading: list[int] = []
    profiles = {n: fake("--load", "0.2") for n in "abc"}
    async with serving(tmp_path, profiles, ready=False) as served:

        def look() -> bool:
            rows = served.daemon.workers()
            loading.append(sum(row["pid"] is not None and row["state"] == "starting" for row in rows))
            return all(row["state"] == "ready" for row in rows)

        await served.until(look)
    assert max(loading) == 1


@pytest.mark.fault(21)
async def test_only_one_daemon_per_state_folder(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        settings = served.daemon.settings.model_copy(update={"port": free_ports()})

        async def beside(daemon: Daemon) -> None:
            raise AssertionError("the second daemon serves")

        with pytest.raises(AlreadyRunningError, match=served.url):
            await run(settings, lambda: served.daemon.router.table.profiles, beside)
        assert (await served.ask("a")).status == 200


async def test_a_taken_proxy_port_is_refused_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ExceptionGroup) as caught:
            async with serving(tmp_path, {"a": fake()}, port=port):
                pass
    errors = [leaf for leaf in _leaves(caught.value) if isinstance(leaf, DraftdError)]
    assert f"port {port} is held by" in str(errors[0])


def _leaves(group: BaseException) -> list[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        return [leaf for inner in group.exceptions for leaf in _leaves(inner)]
    return [group]


@pytest.mark.fault(44)
async def test_an_open_address_needs_a_key(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(tmp_path, {"a": fake()}, host="0.0.0.0"):
            pass
    assert any(
        isinstance(leaf, ConfigError) and "DRAFTD_API_KEY" in str(leaf) for leaf in _leaves(caught.value)
    )


async def test_a_key_is_asked_of_everybody_but_the_health_check(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}, api_key="canary-key") as served:
        for path in ("/v1/models", "/metrics", "/api/status"):
            assert (await served.get(path)).status == 401
        assert (await served.get("/healthz")).status == 200
        assert (await served.ask("a")).status == 401
        right = {"Authorization": "Bearer canary-key"}
        assert (await served.get("/api/status", headers=right)).status == 200


@pytest.mark.fault(19)
async def test_open_streams_may_finish_when_the_daemon_stops(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        streaming = asyncio.create_task(served.ask("a", "[[slow 0.1]]", stream=True))
        await served.until_queue("a")
        served.daemon.stop()
        refused = False
        while not refused and not streaming.done():
            try:
                await served.get("/healthz")
            except aiohttp.ClientConnectorError:
                refused = True
        assert refused
        assert (await streaming).events[-1] == "[DONE]"


@pytest.mark.fault(19)
async def test_streams_that_do_not_finish_in_time_end_as_errors(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}, drain_timeout=0.2) as served:
        streaming = asyncio.create_task(served.ask("a", "[[slow 30]]", stream=True))
        await served.until_queue("a")
        pid = served.row("a")["pid"]
        served.daemon.stop()
        answer = await streaming
        assert answer.cut
        assert answer.events[-1]["error"]["code"] == "stopping"
        assert "draftd is stopping" in answer.events[-1]["error"]["message"]
    assert not alive(pid)
