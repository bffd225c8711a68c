"""The daemon as a whole, with scripted children: what clients, the metrics and the process table show."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import aiohttp
import pytest

from draftd.app import run
from draftd.daemon import Daemon
from draftd.errors import AlreadyRunningError, ConfigError, DraftdError
from draftd.machine_memory import memory_share
from draftd.pressure import Pressure
from tests.harness import QUICK, alive, chat, fake, free_ports, serving


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
