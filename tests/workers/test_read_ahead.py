"""What a worker reads while idle, and gives up when a request comes, with a server that answers when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from draftd.protocol import AHEAD_HEADER
from draftd.workers import read_ahead as module
from draftd.workers.beginning import Beginning
from draftd.workers.health import worker_session
from draftd.workers.read_ahead import read_ahead
from draftd.workers.usage import Usage
from draftd.workers.watched import Watched
from tests.workers.pretended import settle
from tests.workers.watching import LIMIT, PROFILE, serving


class Engine:
    """Keeps what it was asked, and answers once it may; `left` counts the clients that did not wait for that."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[bytes, str | None]] = asyncio.Queue()
        self.lets = asyncio.Event()
        self.left = asyncio.Event()
        self.answer = 200, "data: [DONE]"

    async def post(self, request: web.Request) -> web.StreamResponse:
        self.asked.put_nowait((await request.read(), request.headers.get(AHEAD_HEADER)))
        try:
            await self.lets.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        status, text = self.answer
        return web.Response(status=status, text=text)


@pytest.fixture
async def engine() -> AsyncIterator[tuple[Engine, int]]:
    made = Engine()
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", made.post)])
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield made, runner.addresses[0][1]
    await runner.cleanup()


@pytest.mark.fault(163)
async def test_each_is_read_while_nobody_asks_and_given_up_the_moment_that_somebody_does(
    engine: tuple[Engine, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET", 0.01)
    server, port = engine
    usage = Usage()
    child = Watched(port, lambda: PROFILE, usage, drain=7.0)
    child.beginnings = lambda: [Beginning("one", b"1"), Beginning("two", b"2")]
    async with worker_session() as session, asyncio.timeout(LIMIT):
        with serving(usage):
            reading = asyncio.create_task(read_ahead(child, session))
            await settle()
            assert server.asked.empty(), "a request is open"
        assert await server.asked.get() == (b"1", "1")
        with usage.waits():
            await server.left.wait()
        assert await server.asked.get() == (b"1", "1"), "it goes on when nobody asks any more"
        server.lets.set()
        assert await server.asked.get() == (b"2", "1")
        await reading


async def test_an_engine_that_takes_nothing_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET", 0.01)
    child = Watched(1, lambda: PROFILE, Usage(), drain=7.0)
    child.beginnings = lambda: [Beginning("one", b"1")]
    async with worker_session() as session, asyncio.timeout(LIMIT):
        await read_ahead(child, session)


@pytest.mark.parametrize(("status", "told"), [(200, "read ahead"), (400, "a text cannot be read ahead")])
async def test_a_text_that_the_engine_refuses_is_told_with_its_reason(
    engine: tuple[Engine, int], monkeypatch: pytest.MonkeyPatch, status: int, told: str
) -> None:
    monkeypatch.setattr(module, "QUIET", 0.01)
    server, port = engine
    server.lets.set()
    server.answer = status, '{"error": "the prompt is too long"}'
    child = Watched(port, lambda: PROFILE, Usage(), drain=7.0)
    child.beginnings = lambda: [Beginning("agent.txt", b"1")]
    with capture_logs() as logs:
        async with worker_session() as session, asyncio.timeout(LIMIT):
            await read_ahead(child, session)
    [entry] = logs
    assert (entry["event"], entry["worker"], entry["what"]) == (told, PROFILE.name, "agent.txt")
    assert entry.get("reason") in {None, 'HTTP 400: {"error": "the prompt is too long"}'}


async def test_a_request_in_the_moment_in_which_reading_begins_is_noticed() -> None:
    usage = Usage()
    coming = asyncio.ensure_future(usage.until_asked())
    with usage.waits():  # before the task has run at all
        pass
    async with asyncio.timeout(LIMIT):
        await coming
