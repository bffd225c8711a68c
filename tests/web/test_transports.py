"""What a connection may do to the daemon, over both transports: be idle, slow, stuck, cut, too eager, or gone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from draftd.settings import Settings
from draftd.web import fast_http, listener
from draftd.web.aiohttp_connection import AiohttpConnection
from tests.harness import LIMIT, QUICK, Served, fake, serving, until_gone
from tests.web.raw_http import Connection, Wire

Measured = Callable[[float], None]
ONE_AT_A_TIME = QUICK + "[limits]\nconcurrency = 1\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("served"), {"a": fake()}) as running:
        yield running


async def test_each_wire_leads_over_its_transport(
    wire: Wire, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[AiohttpConnection] = []

    class Counted(AiohttpConnection):
        def __init__(self, *args: object) -> None:
            made.append(self)
            super().__init__(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(listener, "AiohttpConnection", Counted)
    async with wire.connect(served) as connection:
        for stream in (False, True):
            connection.send(wire.chat(stream=stream))
            assert (await connection.answer()).status == 200
    assert len(made) == (1 if wire.transport == "aiohttp" else 0)


@pytest.mark.fault(27)
async def test_a_thousand_idle_connections_slow_nobody_down_and_are_closed(
    wire: Wire, tmp_path: Path, measured: Measured
) -> None:
    """Half of them have never sent anything."""
    async with serving(tmp_path, {"a": fake()}, connection_timeout=2.0) as served:
        port = served.daemon.settings.port
        async with AsyncExitStack() as opened:
            idle: list[Connection] = []
            for number in range(1000):
                connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
                opened.callback(connection.writer.transport.abort)
                idle.append(connection)
                if number % 2:  # at once: on a busy machine the first are closed before the last are open
                    connection.send(wire.chat(model="nobody"))
                    assert (await connection.answer()).status == 404
            taken = [await _healthz(served) for _ in range(5)]
            measured(min(taken))
            assert min(taken) < 0.1
            assert set(await asyncio.gather(*(connection.rest() for connection in idle))) == {b""}


async def _healthz(served: Served) -> float:
    """Seconds until /healthz has answered."""
    began = time.monotonic()
    assert (await served.get("/healthz")).status == 200
    return time.monotonic() - began


async def test_a_connection_in_use_is_not_idle(wire: Wire, tmp_path: Path) -> None:
    async with (
        serving(tmp_path, {"a": fake()}, connection_timeout=0.2) as served,
        wire.connect(served) as connection,
    ):
        for _ in range(2):
            connection.send(wire.chat("[[wait 0.5]]"))
            assert (await connection.answer()).status == 200


async def test_a_connection_is_idle_from_its_last_answer_on(wire: Wire, tmp_path: Path) -> None:
    async with (
        serving(tmp_path, {"a": fake()}, connection_timeout=0.5) as served,
        wire.connect(served) as connection,
    ):
        connection.send(wire.chat("[[wait 0.7]]"))
        await connection.answer()
        began = time.monotonic()
        assert await connection.rest() == b""
        assert time.monotonic() - began > 0.4


@pytest.mark.fault(28)
@pytest.mark.alone
async def test_slow_headers_and_slow_bodies_do_not_hold_a_connection(wire: Wire, tmp_path: Path) -> None:
    promised = Settings.model_fields
    assert (promised["connection_timeout"].default, promised["body_timeout"].default) == (10, 30)
    async with serving(tmp_path, {"a": fake()}, connection_timeout=0.3, body_timeout=0.3) as served:
        async with wire.connect(served, used=True) as connection:
            connection.send(wire.request(b"", "X-Slow: a")[:-2])
            assert await connection.rest() == b""
        began = time.monotonic()
        late = await wire.ask(served, wire.request(b'{"mod', "Content-Length: 500"))
        assert (late.status, late.error["message"]) == (408, "the body did not come within 0.3 s")
        assert time.monotonic() - began < 1.0


@pytest.mark.fault(29)
async def test_a_client_that_stops_reading_costs_no_memory_frees_the_worker_and_is_cut_off(
    wire: Wire, tmp_path: Path, measured: Measured
) -> None:
    async with (
        serving(tmp_path, {"a": fake(tables=ONE_AT_A_TIME)}, write_timeout=0.5) as served,
        wire.connect(served, limit=1024) as stuck,
    ):
        before = psutil.Process().memory_info().rss
        stuck.send(wire.chat("[[tokens 400000]]", stream=True, max_tokens=400_000))
        async with asyncio.timeout(LIMIT):
            await stuck.reader.readexactly(100)
        began = time.monotonic()
        assert (
            await served.ask("a")
        ).status == 200  # had to wait for the place of the one that does not read
        measured(time.monotonic() - began)
        assert psutil.Process().memory_info().rss - before < 20 * 2**20
        await _until_gone(served, stuck.port)
        key = 'draftd_requests_total{endpoint="chat.completions",profile="a",status="499"}'
        assert (await served.metrics())[key] == 1


async def _until_gone(served: Served, client_port: int) -> None:
    """Return when the daemon's end of a client's connection no longer exists."""
    ends = (served.daemon.settings.port, client_port)
    async with asyncio.timeout(5):
        while ends in _connections():  # noqa: ASYNC110 - the kernel does not say when
            await asyncio.sleep(0.01)


def _connections() -> set[tuple[int, int]]:
    found = psutil.Process().net_connections("tcp")
    return {(one.laddr.port, one.raddr.port) for one in found if one.raddr}


@pytest.mark.fault(30)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.alone
async def test_a_client_that_leaves_frees_its_place(wire: Wire, tmp_path: Path, stream: bool) -> None:
    async with serving(tmp_path, {"a": fake(tables=ONE_AT_A_TIME)}) as served:
        sent = wire.chat("[[slow 0.2]]", stream=stream, max_tokens=10)
        async with wire.connect(served) as working:
            working.send(sent)
            await served.until_queue("a")
            async with wire.connect(served) as waiting:
                waiting.send(sent)
                await served.until_queue("a", waiting=1)
            await served.until_queue("a")
        began = time.monotonic()
        await served.until_queue("a", active=0)
        assert time.monotonic() - began < 1.0


@pytest.mark.one_in(2)
async def test_requests_sent_ahead_wait_with_their_sender_and_are_all_answered(
    wire: Wire, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 MB of requests, while the first is being answered: the daemon holds a bounded part of them."""
    monkeypatch.setattr(fast_http, "PATIENCE", 1000.0)  # however slow the machine, aiohttp does not take over
    ahead = wire.chat("x" * 100_000, model="nobody")
    count = 400
    async with wire.connect(served) as connection:
        connection.writer.transport.set_write_buffer_limits(0)
        connection.send(wire.chat("[[wait 1.5]]"))
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(count):
                connection.send(ahead)
                await connection.writer.drain()
                sent += 1

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            assert (await connection.answer()).status == 200
            assert 0 < sent < count / 2  # the kernel holds some as well
            for _ in range(count):
                assert (await connection.answer()).status == 404


@pytest.mark.fault(77)
@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
async def test_who_wishes_for_another_protocol_is_answered_and_waits_for_nothing_more(
    wire: Wire, served: Served, protocol: str
) -> None:
    wish = ("Connection: Upgrade", f"Upgrade: {protocol}")
    asked = [wire.chat("hi", *wish, stream=stream) for stream in (False, True)]
    for one in (HEALTH.replace(b"\r\n\r\n", "\r\n".join(("", *wish, "", "")).encode()), *asked):
        async with wire.connect(served, used=True) as connection:
            connection.send(one)
            answer = await connection.answer()
            assert (answer.status, answer.headers["connection"], answer.whole) == (200, "close", True)
            assert await connection.rest() == b""


async def test_requests_on_one_connection_are_answered_in_order(wire: Wire, served: Served) -> None:
    body = json.dumps({"model": "a", "messages": [{"role": "user", "content": "hi"}]}).encode()
    chunked = wire.request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), "Transfer-Encoding: chunked")
    asked = [wire.chat(), wire.chat(stream=True), wire.chat(model="nobody"), chunked, wire.chat(), HEALTH]
    async with wire.connect(served) as connection:
        connection.send(b"".join(asked))
        answers = [await connection.answer() for _ in asked]
    assert [answer.status for answer in answers] == [200, 200, 404, 200, 200, 200]
    assert ["transfer-encoding" in answer.headers for answer in answers] == [False, True, *[False] * 4]
    assert answers[1].body.endswith(b"data: [DONE]\n\n")
    whole = [answers[n].json["choices"][0]["message"] for n in (0, 3, 4)]
    assert whole[0] == whole[1] == whole[2]


@pytest.mark.parametrize("cut", [1, 20, 110, -1])
async def test_a_request_may_come_in_pieces(wire: Wire, served: Served, cut: int) -> None:
    sent = wire.chat()
    async with wire.connect(served) as connection:
        connection.send(sent[:cut])
        assert (await served.get("/healthz")).status == 200  # by now the first piece has been read
        connection.send(sent[cut:] + HEALTH)
        assert [(await connection.answer()).status for _ in range(2)] == [200, 200]


@pytest.mark.fault(19)
async def test_a_stream_that_does_not_finish_in_time_ends_as_an_error_and_idle_connections_end(
    wire: Wire, tmp_path: Path
) -> None:
    async with (
        serving(tmp_path, {"a": fake()}, drain_timeout=0.2) as served,
        wire.connect(served, used=True) as idle,
        wire.connect(served) as streaming,
    ):
        streaming.send(wire.chat("[[slow 30]]", stream=True))
        await served.until_queue("a")
        served.daemon.stop()
        answer = await streaming.answer()
        assert (answer.status, answer.whole) == (200, False)
        assert b'"message": "draftd is stopping"' in answer.body
        assert b'"code": "stopping"' in answer.body
        assert await idle.rest(limit=5) == b""


@pytest.mark.fault(19)
async def test_an_answer_that_is_still_being_sent_at_a_stop_is_given_time_to_end(
    wire: Wire, tmp_path: Path
) -> None:
    async with (
        serving(tmp_path, {"a": fake()}, drain_timeout=0.1) as served,
        wire.connect(served, limit=1024) as slow,
    ):
        slow.send(wire.chat("[[tokens 400000]]", stream=True, max_tokens=400_000))
        async with asyncio.timeout(LIMIT):
            await slow.reader.readuntil(b"\r\n\r\n")
        pid = served.row("a")["pid"]
        served.daemon.stop()
        await until_gone(pid)
        assert b'"code": "stopping"' in (await slow.rest())[-1000:]


@pytest.mark.one_in(2)
@pytest.mark.fault(78)
@pytest.mark.parametrize("stream", [False, True])
async def test_who_waits_at_a_shutdown_is_told_of_it(wire: Wire, tmp_path: Path, stream: bool) -> None:
    """One is being answered, one waits for its turn, and one waits for a worker that is loading."""
    profiles = {"a": fake(tables=ONE_AT_A_TIME), "late": fake("--load", "60", top="autostart = false")}
    async with (
        serving(tmp_path, profiles, drain_timeout=0.2) as served,
        wire.connect(served) as working,
        wire.connect(served) as waiting,
        wire.connect(served) as loading,
    ):
        working.send(wire.chat("[[wait 30]]", stream=stream))
        await served.until_queue("a")
        waiting.send(wire.chat(stream=stream))
        await served.until_queue("a", waiting=1)
        loading.send(wire.chat(model="late", stream=stream))
        await served.until_state("late", "starting")
        served.daemon.stop()
        answers = await asyncio.gather(*(one.answer() for one in (working, waiting, loading)))
    for answer in answers:
        assert (answer.status, answer.headers["retry-after"], answer.headers.get("x-should-retry")) == (
            503,
            "5",
            None,
        )
        assert (answer.error["code"], answer.error["message"]) == ("stopping", "draftd is stopping")


@pytest.mark.fault(77)
async def test_what_is_not_http_behind_a_request_does_not_cost_that_its_answer(
    wire: Wire, served: Served
) -> None:
    body = json.dumps({"model": "a", "messages": [{"role": "user", "content": "[[wait 0.1]]"}]}).encode()
    chunked = wire.request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), "Transfer-Encoding: chunked")
    for asked in (
        [wire.chat("[[wait 0.1]]")],
        [HEALTH],
        [chunked],
        [HEALTH] * 10,
        [wire.chat(), chunked, HEALTH],
    ):
        for garbage in (b"hello there\r\n\r\n", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"):
            async with wire.connect(served) as connection:
                connection.send(b"".join(asked) + garbage)
                answers = [await connection.answer() for _ in range(len(asked) + 1)]
                assert [answer.status for answer in answers] == [200] * len(asked) + [400]
                assert all(answer.whole for answer in answers)
                assert await connection.rest() == b""


@pytest.mark.one_in(2)
@pytest.mark.fault(90)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_behind_what_it_sent_ahead_frees_its_place(
    wire: Wire, tmp_path: Path, stream: bool
) -> None:
    """It has sent ahead more than is read while the first is answered, and then it has left."""
    ahead = wire.chat("x" * 40_000, model="nobody") * 40
    async with serving(tmp_path, {"a": fake(tables=ONE_AT_A_TIME)}) as served:
        async with wire.connect(served) as working:
            working.send(wire.chat("[[wait 60]]", stream=stream) + ahead)
            await served.until_queue("a")
            async with wire.connect(served) as waiting:
                waiting.send(wire.chat("[[wait 60]]", stream=stream) + ahead)
                await served.until_queue("a", waiting=1)
            await served.until_queue("a", waiting=0)
        began = time.monotonic()
        await served.until_queue("a", active=0)
        assert time.monotonic() - began < 5.0


@pytest.mark.one_in(2)
@pytest.mark.fault(77)
@pytest.mark.parametrize("count", [40, 300])
async def test_all_that_came_before_what_is_not_http_are_answered(
    wire: Wire, served: Served, count: int
) -> None:
    """aiohttp's own connection takes 32 of them at a time."""
    body = json.dumps({"model": "nobody", "messages": []}).encode()
    chunked = wire.request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), "Transfer-Encoding: chunked")
    for asked, status in ((HEALTH, 200), (chunked, 404), (wire.chat(model="nobody"), 404)):
        async with wire.connect(served) as connection:
            connection.send(wire.chat("[[wait 0.1]]") + asked * count + b"GET / HTTP/1.1\r\nno colon\r\n\r\n")
            answers = [await connection.answer() for _ in range(count + 2)]
            assert [answer.status for answer in answers] == [200, *[status] * count, 400]
            assert await connection.rest() == b""


@pytest.mark.fault(77)
async def test_a_body_of_blank_lines_ends_where_it_says(wire: Wire, served: Served) -> None:
    """In a body each of them could be the end of a head."""
    body = json.dumps({"model": "a", "messages": [{"role": "user", "content": "hi"}]}).encode()
    body = body.replace(b"{", b"{" + b"\r\n\r\n" * 5000, 1)
    chunked = wire.request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), "Transfer-Encoding: chunked")
    for asked in (chunked, wire.post(body)):
        async with wire.connect(served) as connection:
            connection.send(asked + HEALTH + b"hello there\r\n\r\n")
            answers = [await connection.answer() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 400]


@pytest.mark.fault(77)
@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_what_is_not_http_may_come_with_the_end_of_the_request_before_it(
    wire: Wire, served: Served, cut: int
) -> None:
    async with wire.connect(served, used=True) as connection:
        connection.send(HEALTH[:-cut])
        assert (await served.get("/healthz")).status == 200  # by now it has been read
        connection.send(HEALTH[-cut:] + b"hello there\r\n\r\n")
        assert [(await connection.answer()).status for _ in range(2)] == [200, 400]
