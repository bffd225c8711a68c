"""The monitor of a child: when it is ready, when it is well, and when it breaks a limit. The test is the child."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from draftd.profile_tables import HealthPolicy, Limits
from draftd.profiles import Profile
from draftd.workers.command import one_token_request
from draftd.workers.health import Watched, is_healthy, owns_port, watch
from draftd.workers.states import IDLE, BecameReady, Event, HealthMissed, HealthOk, Stop, Unfit
from draftd.workers.usage import Usage

LIMIT = 10.0
TOKEN = {"choices": [{"message": {"content": "hi"}}]}
OFTEN = HealthPolicy(interval=0.01, timeout=0.2)
PROFILE = Profile(name="a", model="m", health=OFTEN)
FOREIGN = Profile(name="a", model="m", command=("server", "{port}"), health=OFTEN)


class Server:
    """Answers as it is told; the last answer of `answers` is given again and again."""

    def __init__(self) -> None:
        self.answers: list[web.Response | dict[str, Any]] = [TOKEN]
        self.health = 200
        self.hangs = asyncio.Event()  # set: answers come
        self.hangs.set()
        self.bodies: list[Any] = []
        self.asked: list[float] = []
        self.checks: list[float] = []

    async def post(self, request: web.Request) -> web.Response:
        self.asked.append(time.monotonic())
        self.bodies.append(await request.json())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.json_response(answer) if isinstance(answer, dict) else answer

    async def get(self, request: web.Request) -> web.Response:
        self.checks.append(time.monotonic())
        await self.hangs.wait()
        return web.Response(status=self.health)


class Bench:
    """A server, and what its monitor reports."""

    def __init__(self, server: Server, session: aiohttp.ClientSession, port: int) -> None:
        self.server = server
        self.session = session
        self.port = port
        self.pid = os.getpid()
        self.usage = Usage()
        self.memory: int | None = 1000
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    async def next(self) -> Event:
        async with asyncio.timeout(LIMIT):
            return await self.events.get()

    async def until(self, event: Event) -> None:
        async with asyncio.timeout(LIMIT):
            while await self.events.get() != event:
                pass

    @asynccontextmanager
    async def watching(self, profile: Profile = PROFILE) -> AsyncIterator[Bench]:
        child = Watched(self.pid, self.port, lambda: profile, self.usage, lambda: self.memory, drain=7.0)
        task = asyncio.create_task(watch(child, self.session, self.events.put_nowait))
        try:
            yield self
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    server = Server()
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", server.post), web.get("/health", server.get)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Bench(server, session, runner.addresses[0][1])
    finally:
        server.hangs.set()
        await runner.cleanup()


# --- ready ----------------------------------------------------------------------------------------------------


async def test_a_child_is_ready_when_it_has_generated_a_token_and_not_before(bench: Bench) -> None:
    bench.server.answers = [
        web.json_response({"error": "loading"}, status=503),
        {"choices": []},
        {},
        web.json_response(["choices"]),
        web.Response(text="not JSON"),
        web.Response(body=b"\xff\xfe", content_type="application/json"),
        web.json_response(TOKEN, status=500),
        TOKEN,
    ]
    async with bench.watching():
        assert await bench.next() == BecameReady()
        assert bench.server.bodies == [one_token_request(PROFILE)] * 8
        assert await bench.next() == HealthOk()


async def test_a_child_that_does_not_get_ready_is_asked_less_and_less_often(bench: Bench) -> None:
    bench.server.answers = [*[{}] * 7, TOKEN]
    async with bench.watching():
        assert await bench.next() == BecameReady()
    gaps = [later - earlier for earlier, later in pairwise(bench.server.asked)]
    assert gaps[-1] > 0.5
    assert gaps[0] < 0.3


async def test_a_stranger_on_the_port_is_asked_nothing(bench: Bench) -> None:
    with _python("input()") as stranger:
        bench.pid = stranger.pid
        for profile in (PROFILE, FOREIGN):
            async with bench.watching(profile):
                await asyncio.sleep(0.3)  # some ten looks
        stranger.communicate()
    assert (bench.server.bodies, bench.server.checks) == ([], [])
    assert bench.events.empty()


async def test_the_port_of_a_family_may_be_a_childs() -> None:
    code = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True); input()"
    )
    with _python(code) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        assert owns_port(server.pid, port, family=False)
        assert owns_port(os.getpid(), port, family=True)
        assert not owns_port(os.getpid(), port, family=False)
        assert not owns_port(server.pid, port + 1, family=False)
        server.communicate()
    assert owns_port(server.pid, port, family=False) is False


async def test_a_connection_to_the_port_is_no_listener(bench: Bench) -> None:
    code = f"import socket; s = socket.create_connection(('127.0.0.1', {bench.port})); print(flush=True); input()"
    with _python(code) as client:
        assert client.stdout is not None
        await asyncio.to_thread(client.stdout.readline)
        assert not owns_port(client.pid, bench.port, family=False)
        client.communicate()


def _python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


# --- well -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "profile", "well"),
    [
        (200, PROFILE, True),
        (404, PROFILE, False),
        (500, PROFILE, False),
        (404, FOREIGN, True),
        (500, FOREIGN, False),
    ],
)
async def test_a_check_goes_by_the_status_and_is_strict_with_our_engine(
    bench: Bench, status: int, profile: Profile, well: bool
) -> None:
    bench.server.health = status
    async with bench.watching(profile):
        assert await bench.next() == BecameReady()
        assert await bench.next() == (HealthOk() if well else HealthMissed())


async def test_no_answer_in_time_is_a_miss_and_the_next_check_follows_at_once(bench: Bench) -> None:
    rare = PROFILE.model_copy(update={"health": HealthPolicy(interval=LIMIT, timeout=0.1)})
    bench.server.hangs.clear()
    async with bench.watching(rare):
        assert [await bench.next() for _ in range(4)] == [BecameReady()] + [HealthMissed()] * 3
    one, two, three, *_ = bench.server.checks
    assert 0.05 < two - one < LIMIT / 2
    assert 0.05 < three - two < LIMIT / 2


async def test_misses_that_come_quickly_are_no_quicker_a_reason_to_restart(bench: Bench) -> None:
    profile = PROFILE.model_copy(update={"health": HealthPolicy(interval=LIMIT, timeout=0.3)})
    bench.server.health = 500
    async with bench.watching(profile):
        assert [await bench.next() for _ in range(3)] == [BecameReady(), HealthMissed(), HealthMissed()]
    one, two, *_ = bench.server.checks
    assert two - one > 0.25


async def test_a_refused_connection_is_a_miss(bench: Bench) -> None:
    assert not await is_healthy(bench.session, 1, 1.0, strict=False)


async def test_after_an_answer_the_next_check_waits_for_the_interval(bench: Bench) -> None:
    slow = PROFILE.model_copy(update={"health": HealthPolicy(interval=0.3, timeout=0.1)})
    async with bench.watching(slow):
        assert [await bench.next() for _ in range(3)] == [BecameReady(), HealthOk(), HealthOk()]
    one, two = bench.server.checks
    assert two - one > 0.25


async def test_a_child_that_is_too_busy_to_answer_is_well_while_it_generates(bench: Bench) -> None:
    bench.server.hangs.clear()
    async with bench.watching():
        assert [await bench.next(), await bench.next()] == [BecameReady(), HealthMissed()]
        with bench.usage.serves():
            generating = asyncio.create_task(_generate(bench.usage))
            await bench.until(HealthOk())
            generating.cancel()
            bench.usage._progress = time.monotonic() - LIMIT  # the request is still open
            await bench.until(HealthMissed())
            assert await bench.next() == HealthMissed()
        bench.usage.progress()  # but no request is open
        await bench.until(HealthMissed())
        assert await bench.next() == HealthMissed()


async def _generate(usage: Usage) -> None:
    while True:
        usage.progress()
        await asyncio.sleep(0.01)


# --- limits ---------------------------------------------------------------------------------------------------


async def test_a_child_over_its_memory_is_unfit_but_may_finish(bench: Bench) -> None:
    limited = PROFILE.model_copy(update={"limits": Limits.model_validate({"memory": "1KB"})})
    async with bench.watching(limited):
        for used in (1000, None):
            bench.memory = used
            await bench.until(HealthOk())
            assert await bench.next() == HealthOk()
        bench.memory = 1001
        await bench.until(Unfit("memory", 7.0))


async def test_an_open_request_without_progress_is_a_stall(bench: Bench) -> None:
    assert PROFILE.stall_timeout == 120.0
    async with bench.watching():
        with bench.usage.serves():
            bench.usage._progress = time.monotonic() - 110.0
            await bench.until(HealthOk())
            assert await bench.next() == HealthOk()
            bench.usage._progress = time.monotonic() - 121.0
            await bench.until(Unfit("stalled"))


@pytest.mark.parametrize("idle_timeout", [0, 60])
async def test_an_idle_child_is_stopped_if_its_profile_says_so(bench: Bench, idle_timeout: float) -> None:
    profile = PROFILE.model_copy(update={"idle_timeout": idle_timeout})
    async with bench.watching(profile):
        bench.usage._last = time.monotonic() - 59.0
        await bench.until(HealthOk())
        assert await bench.next() == HealthOk()
        bench.usage._last = time.monotonic() - 61.0
        await bench.until(HealthOk())
        await bench.until(Stop(IDLE) if idle_timeout else HealthOk())
