"""Requests that other machines answer: choices, refusals, breaks, clients that leave; and what is said about it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from draftd.peers.condition import Out
from draftd.web import peer_http
from tests.harness import LIMIT, Served, chat, fake, free_ports, serving
from tests.peers.between import Between, between
from tests.peers.conftest import PLACES, Pair, peer_of, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
NOTHING = {"here": fake(top="autostart = false")}


@asynccontextmanager
async def front(
    tmp_path: Path,
    *peers: Served | Between,
    profiles: Mapping[str, str] = NOTHING,
    weights: tuple[float, ...] = (),
    **settings: Any,
) -> AsyncIterator[Served]:
    """A daemon with these peers, each of which it has heard of."""
    tables = [
        {"url": peer.url, "weight": weight}
        for peer, weight in zip(peers, weights or [1.0] * len(peers), strict=True)
    ]
    async with serving(tmp_path, profiles, peers=tables, **settings) as served:
        async with asyncio.timeout(LIMIT):
            for peer in served.daemon.fleet.peers:
                await until(served, int(peer.name.rpartition(":")[2]), "well")
        yield served


def port_of(peer: Served) -> int:
    return peer.daemon.settings.port


@asynccontextmanager
async def ways(pair: Pair) -> AsyncIterator[tuple[Between, Between]]:
    async with between(port_of(pair.one)) as one, between(port_of(pair.other)) as other:
        yield one, other


# --- what is answered -----------------------------------------------------------------------------------------


async def test_models_of_peers_are_listed_and_answered_in_every_dialect(pair: Pair, tmp_path: Path) -> None:
    async with front(tmp_path, pair.one, pair.other) as served:
        listed = (await served.get("/v1/models")).json["data"]
        assert [(model["id"], model["owned_by"]) for model in listed] == [
            ("here", "draftd"),
            ("m", f"127.0.0.1:{port_of(pair.one)}"),
            ("mine", f"127.0.0.1:{port_of(pair.one)}"),
        ]
        assert (await served.get("/v1/models/mine")).json["id"] == "mine"
        whole = await served.ask("mine")
        assert whole.json["choices"][0]["message"]["content"] == "one two three four five"
        assert (whole.json["model"], whole.json["usage"]["completion_tokens"]) == ("mine", 5)
        assert whole.headers["x-draftd-worker"] == f"127.0.0.1:{port_of(pair.one)}"
        assert whole.headers["x-draftd-profile"] == "mine"
        stream = await served.ask("speculative/mine", stream=True)
        assert (stream.content, stream.events[-1], stream.cut) == ("one two three four five", "[DONE]", False)
        text = await served.post("/v1/completions", {"model": "mine", "prompt": "hi"})
        assert text.json["choices"][0]["text"] == "one two three four five"
        message = {"model": "mine", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        told = await served.post("/v1/messages", message)
        assert told.json["content"][0]["text"] == "one two three four five six seven eight nine"
        response = await served.post("/v1/responses", {"model": "mine", "input": "hi"})
        assert response.json["output"][-1]["content"][0]["text"] == "one two three four five"
        rows = (await served.get("/api/requests")).json["requests"]
        assert {(row["profile"], row["peer"], row["status"], row["tokens"] > 0) for row in rows} == {
            ("mine", f"127.0.0.1:{port_of(pair.one)}", 200, True)
        }
        series = await served.metrics()
        labels = f'peer="127.0.0.1:{port_of(pair.one)}"'
        assert series[f'draftd_peer_requests_total{{outcome="answered",{labels}}}'] == 5
        assert series[f"draftd_peer_up{{{labels}}}"] == 1
        assert series['draftd_completion_tokens_total{profile="mine"}'] == 29
        status = (await served.get("/api/status")).json["peers"][0]
        assert (status["state"], status["models"], status["requests"]) == (
            "well",
            ["m", "mine"],
            {"answered": 5},
        )


async def test_a_model_that_is_here_too_is_answered_in_turns_and_a_conversation_stays_where_it_is(
    pair: Pair, tmp_path: Path
) -> None:
    async with front(tmp_path, pair.one, pair.other, profiles={"m": fake()}) as served:

        async def asked(name: str, turns: int) -> str:
            """Ask for another turn of a conversation that begins with a long text of its own."""
            said = [{"role": "user", "content": f"{name} {n} " * 400} for n in range(turns)]
            answer = await served.post("/v1/chat/completions", {"model": "m", "messages": said})
            assert answer.status == 200
            return answer.headers["x-draftd-worker"]

        begun = {name: await asked(name, 1) for name in ("ant", "bee", "cat", "dog", "elk", "fox")}
        assert set(begun.values()) == {
            f"127.0.0.1:{served.row('m')['port']}",
            *(f"127.0.0.1:{port_of(peer)}" for peer in (pair.one, pair.other)),
        }
        for turns in (2, 3):
            assert {name: await asked(name, turns) for name in reversed(begun)} == begun


async def test_a_name_that_only_a_peer_knows_is_answered_there_although_its_model_is_here(
    pair: Pair, tmp_path: Path
) -> None:
    """What is made for a peer names the model as the peer does, and would make a worker here load other weights."""
    log = tmp_path / "asked"
    here = fake("--log-requests", str(log))
    async with front(tmp_path, pair.one, profiles={"m": here}) as served:
        for _ in range(3):
            answer = await served.ask("em", "by its other name")
            assert answer.headers["x-draftd-worker"] == f"127.0.0.1:{port_of(pair.one)}"
            assert answer.json["model"] == "em"
        assert "by its other name" not in log.read_text()


async def test_fields_of_ours_reach_a_draftd_and_errors_come_back_as_they_are(
    pair: Pair, tmp_path: Path
) -> None:
    async with front(tmp_path, pair.one) as served:
        wrong = await served.ask("mine", temperature=99)
        assert (wrong.status, wrong.json["error"]["param"]) == (400, "temperature")
        told = await served.ask(
            "mine", drafters=["lookup"]
        )  # the peer's own refusal: its worker is another server
        assert (told.status, told.json["error"]["param"]) == (400, "drafters")
        failed = await served.ask("mine", "[[status 418]]")
        assert (failed.status, failed.json["error"]["message"]) == (418, "asked for status 418")
        event = await served.ask("mine", "[[error-event]]", stream=True)
        assert (event.events[-1]["error"]["message"], event.cut) == ("broken inside", True)
        assert peer_of(served, port_of(pair.one)).condition.label == "well"
        large = await served.ask("mine", "x" * 300_000)  # read in a process of its own
        assert large.status == 200


# --- what goes wrong ------------------------------------------------------------------------------------------


@pytest.mark.fault(150)
async def test_a_peer_that_is_gone_is_left_out_at_once_and_back_with_its_first_answer(
    pair: Pair, tmp_path: Path
) -> None:
    async with ways(pair) as (one, other), front(tmp_path, one, other, weights=(1000, 1)) as served:
        assert (await served.ask("m")).headers["x-draftd-worker"] == f"127.0.0.1:{one.port}"
        await one.down()
        answer = await served.ask("m", "after the fall")
        assert (answer.status, answer.headers["x-draftd-worker"]) == (200, f"127.0.0.1:{other.port}")
        assert pair.runs("after the fall") == 1
        gone = peer_of(served, one.port)
        assert isinstance(gone.condition, Out)
        assert gone.condition.reason in {"connection refused", "broke off"}
        accepted = other.accepted
        for _ in range(3):  # nobody tries the first any more
            assert (await served.ask("m", stream=True)).events[-1] == "[DONE]"
        assert other.accepted >= accepted + 3
        listed = [model["id"] for model in (await served.get("/v1/models")).json["data"]]
        assert listed == ["here", "m", "mine"]  # it may be back in a moment
        alone = await served.ask("mine")
        assert (alone.status, alone.json["error"]["code"]) == (503, "no_peer")
        assert f"127.0.0.1:{one.port}: {gone.condition.reason}" in alone.json["error"]["message"]
        assert int(alone.headers["Retry-After"]) >= 1
        await one.up()
        async with asyncio.timeout(LIMIT):
            await until(served, one.port, "well")
        assert (await served.ask("m")).headers["x-draftd-worker"] == f"127.0.0.1:{one.port}"


@pytest.mark.fault(151)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("cut_after", [0, 1000])
async def test_what_breaks_off_is_an_error_and_never_sent_again(
    pair: Pair, tmp_path: Path, stream: bool, cut_after: int
) -> None:
    async with ways(pair) as (one, other), front(tmp_path, one, other, weights=(1000, 1)) as served:
        one.cut_after = cut_after
        text = f"breaks off {stream} {cut_after}"
        answer = await served.ask("m", f"{text} [[slow 0.02]]", stream=stream)
        if cut_after and stream:
            assert (answer.status, answer.cut) == (200, True)
            error = answer.events[-1]["error"]
        else:
            assert answer.status == 502
            error = answer.json["error"]
        assert error["code"] == "peer_lost"
        assert f"the peer 127.0.0.1:{one.port} broke off" in error["message"]
        assert pair.runs(text) == 1 if cut_after else pair.runs(text) <= 1
        assert peer_of(served, other.port).given == 0
        assert peer_of(served, one.port).condition.label == "out"
        assert peer_of(served, one.port).outcomes["failed"] == 1


@pytest.mark.fault(153)
async def test_who_is_full_is_passed_over_and_where_all_are_the_client_hears_when_to_come(
    pair: Pair, tmp_path: Path
) -> None:
    async with front(tmp_path, pair.one, pair.other, weights=(1000, 1)) as served, AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        held: list[asyncio.Task[Any]] = []
        for peer, name in ((pair.one, "one"), (pair.other, "other")):
            held += [tasks.create_task(peer.ask("m", f"{name} [[wait 0.6]]")) for _ in range(PLACES + 1)]
            await peer.until_queue("m", active=PLACES, waiting=1)
            if peer is pair.one:
                answer = await served.ask("m", "passed over")
                assert (answer.status, answer.headers["x-draftd-worker"]) == (
                    200,
                    f"127.0.0.1:{port_of(pair.other)}",
                )
                assert peer_of(served, port_of(pair.one)).outcomes["refused"] == 1
        full = await served.ask("m")
        assert (full.status, full.json["error"]["code"]) == (429, "queue_full")
        assert int(full.headers["Retry-After"]) >= 1
        assert {peer.condition.label for peer in served.daemon.fleet.peers} == {"well"}
        for task in held:
            task.cancel()


@pytest.mark.fault(153)
async def test_a_worker_here_that_cannot_serve_leaves_its_requests_to_peers(
    pair: Pair, tmp_path: Path
) -> None:
    async with front(tmp_path, pair.one, profiles={"m": fake(), "alone": fake()}) as served:
        for name in ("m", "alone"):
            assert (await served.post(f"/api/workers/{name}/stop")).status == 202
            await served.until_state(name, "stopped")
        answer = await served.ask("m")
        assert (answer.status, answer.headers["x-draftd-worker"]) == (200, f"127.0.0.1:{port_of(pair.one)}")
        assert (await served.ask("alone")).json["error"]["code"] == "worker_stopped"
        async with ways(pair) as (one, _):
            assert one.accepted == 0


@pytest.mark.fault(154)
async def test_daemons_that_are_each_others_peers_send_a_request_one_hop_at_most(tmp_path: Path) -> None:
    ports, folders = (free_ports(), free_ports()), (tmp_path / "a", tmp_path / "b")
    for folder in folders:
        folder.mkdir()
    tables = [[{"url": f"http://127.0.0.1:{port}"}] for port in reversed(ports)]
    asleep = fake(top="autostart = false")
    async with (
        serving(folders[0], {"a": asleep, "m": asleep}, port=ports[0], peers=tables[0]) as one,
        serving(folders[1], {"b": fake(), "m": asleep}, port=ports[1], peers=tables[1]) as other,
        asyncio.timeout(LIMIT),
    ):
        await until(one, ports[1], "well")
        await until(other, ports[0], "well")
        for served in (one, other):
            ids = [model["id"] for model in (await served.get("/v1/models")).json["data"]]
            assert sorted(ids) == ["a", "b", "m"]
            alone = await served.get("/v1/models", headers={"X-Draftd-Hops": "1"})
            assert len(alone.json["data"]) == 2
        assert (await one.ask("b")).status == 200
        sent_on = await one.post("/v1/chat/completions", chat(model="b"), headers={"X-Draftd-Hops": "1"})
        assert (sent_on.status, sent_on.json["error"]["code"]) == (404, "model_not_found")
        for served in (one, other):
            await served.post("/api/workers/m/stop")
            await served.until_state("m", "stopped")
        nobody = await one.ask("m")
        assert (nobody.status, nobody.json["error"]["code"]) == (503, "worker_stopped")
        told = [row for row in (await other.get("/api/requests")).json["requests"] if row["profile"] == "m"]
        assert len(told) <= 1
        assert one.daemon.proxy.open_requests == other.daemon.proxy.open_requests == 0


@pytest.mark.fault(155)
async def test_a_peer_that_does_not_take_our_key_and_one_that_is_this_daemon_are_left_out(
    tmp_path: Path,
) -> None:
    port, auth = free_ports(), {"Authorization": "Bearer right"}
    for name in ("locked", "front"):
        (tmp_path / name).mkdir()
    async with serving(tmp_path / "locked", {"m": fake()}, api_key="right") as locked:
        theirs = port_of(locked)
        tables = [
            {"url": f"http://127.0.0.1:{theirs}", "api_key": "canary-wrong"},
            {"url": f"http://localhost:{port}"},
        ]
        async with (
            serving(tmp_path / "front", {"m": fake()}, port=port, peers=tables) as served,
            asyncio.timeout(LIMIT),
        ):
            for peer in served.daemon.fleet.peers:
                while peer.condition.label != "out":
                    peer.news.clear()
                    await peer.news.wait()
            assert (await served.ask("m")).status == 200
            rows = (await served.get("/api/status")).json["peers"]
            assert rows[0]["reason"].startswith(
                "does not take our api_key (status 401): this daemon asks for"
            )
            assert rows[1]["reason"] == "it is this daemon itself"
            assert [row["models"] for row in rows] == [[], []]
            assert "canary" not in json.dumps(rows)
            assert (await locked.get("/api/requests", headers=auth)).json["requests"] == []


@pytest.mark.fault(157)
async def test_a_client_that_leaves_frees_the_peers_worker(pair: Pair, tmp_path: Path) -> None:
    async with front(tmp_path, pair.one) as served:
        body = chat("[[slow 0.1]]", model="mine", stream=True)
        async with served.http.post(served.url + "/v1/chat/completions", json=body) as response:
            await response.content.readany()
            await pair.one.until_queue("mine")
            response.close()
        async with asyncio.timeout(1.0):
            await pair.one.until_queue("mine", active=0)
        assert peer_of(served, port_of(pair.one)).outcomes == {"left": 1}
        assert peer_of(served, port_of(pair.one)).open == 0


@pytest.mark.fault(158)
async def test_a_daemon_that_stops_says_so_to_whom_a_peer_answers(pair: Pair, tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks, front(tmp_path, pair.one, drain_timeout=0.05) as served:
        body = chat("[[slow 0.2]]", model="mine", stream=True)
        async with served.http.post(served.url + "/v1/chat/completions", json=body) as stream:
            while b"one" not in await stream.content.readany():
                pass
            whole = tasks.create_task(served.ask("mine"))  # waits for the one before it, at the worker
            await pair.one.until_queue("mine", active=2)
            served.daemon.stop()
            rest = b""
            try:
                while piece := await stream.content.readany():
                    rest += piece
                raise AssertionError("it ended as if it were whole")
            except aiohttp.ClientPayloadError:
                pass
            assert json.loads(rest.split(b"data: ")[-1])["error"]["code"] == "stopping"
        answer = await whole
        assert (answer.status, answer.json["error"]["code"]) == (503, "stopping")
    await pair.one.until_queue("mine", active=0)


@pytest.mark.fault(159)
async def test_a_peer_that_falls_silent_is_noticed(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_http, "SILENT_KEEPALIVES", 0.03)  # of ten seconds
    async with ways(pair) as (one, _), front(tmp_path, one) as served:
        one.mute = True
        answer = await served.ask("mine", "into the silence")
        assert (answer.status, answer.json["error"]["code"]) == (502, "peer_lost")
        assert "fell silent before it answered" in answer.json["error"]["message"]
        assert peer_of(served, one.port).condition.label == "out"
        assert pair.runs("into the silence") == 1
