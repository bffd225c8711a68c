"""A server that is monitored like a child: the test says what it answers, and hears what the monitor reports."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from draftd.profile_tables import HealthPolicy
from draftd.profiles import Profile
from draftd.workers.events import Event
from draftd.workers.health import watch
from draftd.workers.usage import Usage
from draftd.workers.watched import Watched

LIMIT = 10.0
TOKEN = {"choices": [{"message": {"content": "hi"}}]}
OFTEN = HealthPolicy(interval=0.01, timeout=0.2)
PROFILE = Profile(name="a", model="m", health=OFTEN)
FOREIGN = Profile(name="a", model="m", command=("server", "{port}"), health=OFTEN)


@contextmanager
def serving(usage: Usage) -> Iterator[None]:
    """While a request is open."""
    usage.begin()
    try:
        yield
    finally:
        usage.end()


class Server:
    """Answers as it is told: with the last of `answers` again and again, or with an endless body if it has none."""

    def __init__(self) -> None:
        self.answers: list[web.Response | dict[str, Any]] = [TOKEN]
        self.health = 200
        self.holds_up = 0.0  # seconds that the loop stands still at a check; then its answer is there
        self.hangs = asyncio.Event()  # set: answers come
        self.hangs.set()
        self.bodies: list[Any] = []
        self.asked: list[float] = []
        self.checks: list[float] = []

    async def post(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(time.monotonic())
        self.bodies.append(await request.json())
        if not self.answers:
            return await self._endless(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, dict):
            return web.json_response(answer)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b"[" * 65536)
        return response

    async def get(self, request: web.Request) -> web.Response:
        self.checks.append(time.monotonic())
        time.sleep(self.holds_up)  # noqa: ASYNC251 - that is meant
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
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    async def next(self) -> Event:
        async with asyncio.timeout(LIMIT):
            return await self.events.get()

    async def until(self, event: Event) -> None:
        async with asyncio.timeout(LIMIT):
            while await self.events.get() != event:
                pass

    @asynccontextmanager
    async def watching(self, profile: Profile = PROFILE, *, ends: bool = False) -> AsyncIterator[Bench]:
        child = self.child = Watched(self.port, lambda: profile, self.usage, drain=7.0, pid=self.pid)
        task = asyncio.create_task(watch(child, self.session, self.events.put_nowait))
        try:
            yield self
            if ends:
                await task
            assert ends or not task.done()
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
        connector = aiohttp.TCPConnector(force_close=True)  # as the daemon's
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Bench(server, session, runner.addresses[0][1])
    finally:
        server.hangs.set()
        await runner.cleanup()
