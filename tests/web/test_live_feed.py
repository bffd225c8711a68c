"""GET /api/events: what a reader is told and when, and what slow readers and many readers cost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from draftd.telemetry.journal import Journal
from draftd.telemetry.told import Told
from draftd.telemetry.worker_log import WorkerLog
from draftd.web import live_feed
from draftd.web.live_feed import MAX_BACKLOG, MAX_LINES, LiveFeed
from tests.harness import LIMIT, Served, fake, serving


def parsed(piece: bytes) -> list[tuple[str, Any]]:
    """The events in a piece of a stream; a comment is ('', text)."""
    events: list[tuple[str, Any]] = []
    for text in piece.decode().strip().split("\n\n"):
        kind, _, data = text.partition("\n")
        word = kind.removeprefix("event: ")
        events.append((word, json.loads(data.removeprefix("data: "))) if data else ("", text))
    return events


class Reader:
    """A client of /api/events."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.status: dict[str, Any] = {}
        self.lines: dict[str, list[str]] = {}
        self.snapshots = 0

    async def until(self, met: Any) -> None:
        async with asyncio.timeout(LIMIT):
            while not met(self):
                await self.step()

    async def step(self) -> None:
        while b"\n\n" not in self._rest:
            chunk = await anext(self._chunks, b"")
            if not chunk:
                raise EOFError
            self._rest += chunk
        whole, _, self._rest = self._rest.rpartition(b"\n\n")
        for kind, data in parsed(whole):
            if kind == "snapshot":
                self.snapshots += 1
                self.status = data["status"]
                self.lines = {name: [line["text"] for line in lines] for name, lines in data["logs"].items()}
            elif kind == "status":
                self.status = data
            elif kind == "log":
                for name, lines in data.items():
                    self.lines.setdefault(name, []).extend(line["text"] for line in lines)

    def row(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(row for row in self.status["workers"] if row["name"] == name)
        return found


@asynccontextmanager
async def reading(served: Served) -> AsyncIterator[Reader]:
    async with served.http.get(served.url + "/api/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        reader = Reader(response.content.iter_any())
        await reader.step()
        yield reader


@pytest.fixture(autouse=True)
def only_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No periodic looks: a reader hears only what the stream was told."""
    monkeypatch.setattr(live_feed, "LOOK_EVERY", 10 * LIMIT)


def said(reader: Reader) -> list[str]:
    """What the log of `a` says of requests; the daemon writes the one line, the worker the other."""
    return [line for line in reader.lines["a"] if line.startswith(("200 ", "Draft tokens accepted"))]


async def test_a_reader_has_everything_at_once_and_then_each_change(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake(), "b": fake()}) as served, reading(served) as reader:
        assert [row["state"] for row in reader.status["workers"]] == ["ready", "ready"]
        assert any(line.startswith("fake server of") for line in reader.lines["a"])
        assert reader.status.keys() == (await served.get("/api/status")).json.keys()

        await served.ask("a", "[[slow 0.01]]", stream=True)
        await reader.until(
            lambda r: r.row("a")["requests"] == 1 and r.row("a")["acceptance"]["accepted"] == 5
        )
        await reader.until(lambda r: len(said(r)) >= 2)
        assert reader.row("a")["recent"]["acceptance"] == [0.5]
        assert len(reader.row("a")["recent"]["tokens_per_second"]) == 1
        request, acceptance = sorted(said(reader))
        assert acceptance == "Draft tokens accepted: 5/10 (50%)"
        assert request.startswith("200      5 tokens ")

        await served.post("/api/workers/b/stop")
        await reader.until(lambda r: r.row("b")["state"] == "stopped")
        await served.post("/api/workers/b/start")
        await reader.until(lambda r: r.row("b")["state"] == "ready")
        written = (await served.get("/api/logs/b?raw=1")).text.splitlines()
        assert reader.lines["b"] == [line.partition(" ")[2] for line in written]
        assert reader.snapshots == 1


async def test_what_the_daemon_writes_into_a_log_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        live_feed, "SETTLE", 0.0
    )  # the look at an answer's end comes before its line is written
    monkeypatch.setattr(live_feed, "MIN_REST", 0.0)
    async with serving(tmp_path, {"a": fake()}) as served, reading(served) as reader:
        await served.ask("a")
        await reader.until(lambda r: any(line.startswith("200 ") for line in r.lines["a"]))
        served.daemon.chronicle.take_event(Told(0.0, "a", "an event", "plain"))
        await reader.until(lambda r: "an event" in r.lines["a"])


async def test_the_queue_and_the_request_at_work_are_told(tmp_path: Path) -> None:
    profile = fake(tables="[limits]\nconcurrency = 1\n")
    async with serving(tmp_path, {"a": profile}) as served, reading(served) as reader:
        asking = [asyncio.create_task(served.ask("a", "[[wait 0.5]]")) for _ in range(3)]
        await reader.until(lambda r: r.row("a")["active"] == 1 and r.row("a")["queue"] == 2)
        await asyncio.gather(*asking)
        await reader.until(lambda r: r.row("a")["active"] == 0 and r.row("a")["queue"] == 0)
        assert reader.row("a")["requests"] == 3
        leaving = asyncio.create_task(served.ask("a", "[[wait 60]]"))
        await reader.until(lambda r: r.row("a")["active"] == 1)
        leaving.cancel()  # the worker knows nothing of it, and writes nothing
        await reader.until(lambda r: r.row("a")["active"] == 0)


async def test_what_a_worker_writes_is_told_while_it_works(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served, reading(served) as reader:
        asking = asyncio.create_task(served.ask("a", "[[prompt 2]]"))
        await reader.until(lambda r: "Prompt processing progress: 3/10" in r.lines["a"])
        assert reader.row("a")["active"] == 1
        assert not asking.done()
        await asking


@pytest.mark.alone
async def test_streams_end_at_once_when_the_daemon_stops_and_hold_nothing_up(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}, drain_timeout=60.0) as served, reading(served) as reader:
        asking = asyncio.create_task(served.ask("a", "[[slow 0.2]]", stream=True))
        await reader.until(lambda r: r.row("a")["active"] == 1)
        began = time.monotonic()
        served.daemon.stop()
        with pytest.raises(EOFError):
            await reader.until(lambda r: False)
        assert time.monotonic() - began < 1.0
        assert not asking.done()
        assert (await asking).content == "one two three four five"
        refused = await served.get("/api/events")
        assert (refused.status, refused.json["error"]["code"]) == (503, "stopping")


class Given:
    """A stream over a status and logs that the test writes itself."""

    def __init__(self) -> None:
        self.log = WorkerLog(None, ring_lines=1000, on_error=lambda _: None)
        self.looks = 0
        self.requests = 0
        self.changed = asyncio.Event()
        self.journal = Journal(self.changed.set, lambda _: None)
        self.stream = LiveFeed(self.status, lambda _: self.log, self.journal, self.changed)

    def status(self) -> dict[str, Any]:
        self.looks += 1
        return {"workers": [{"name": "a", "worker": "a", "requests": self.requests}]}

    def write(self, *lines: str) -> None:
        self.log.write(lines)
        self.changed.set()


@pytest.fixture
async def given(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Given]:
    monkeypatch.setattr(live_feed, "SETTLE", 0.0)
    monkeypatch.setattr(live_feed, "MIN_REST", 0.0)
    made = Given()
    running = asyncio.create_task(made.stream.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_nothing_is_looked_at_while_nobody_reads(given: Given) -> None:
    for _ in range(3):
        given.write("line")
        await asyncio.sleep(0)
    assert given.looks == 0
    async with aclosing(given.stream.read()) as pieces:
        await anext(pieces)
    looks = given.looks
    assert looks > 0
    for _ in range(10):
        given.write("line")
        await asyncio.sleep(0)
    assert given.looks == looks


async def test_a_line_comes_once_whether_before_or_after_the_snapshot(given: Given) -> None:
    given.write("one")
    async with aclosing(given.stream.read()) as first, aclosing(given.stream.read()) as second:
        assert _texts(await anext(first)) == ["one"]
        given.write("two")
        assert _texts(await anext(second)) == ["one", "two"]
        assert _texts(await anext(first)) == ["two"]
        given.write("three")
        assert _texts(await anext(first)) == _texts(await anext(second)) == ["three"]


async def test_a_line_that_came_since_the_last_look_is_news_and_not_in_a_snapshot(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_feed, "MIN_REST", 10.0)
    given.write("one")
    async with aclosing(given.stream.read()) as first, aclosing(given.stream.read()) as second:
        await anext(first)
        given.log.write(["two"])
        assert _texts(await anext(second)) == ["one"]
        given.changed.set()
        assert _texts(await anext(first)) == _texts(await anext(second)) == ["two"]


async def test_more_lines_than_fit_are_counted_instead(given: Given) -> None:
    async with aclosing(given.stream.read()) as pieces:
        await anext(pieces)
        given.write(*(f"line {n}" for n in range(MAX_LINES + 7)))
        texts = _texts(await anext(pieces))
        assert texts == ["… 7 lines skipped", *(f"line {n}" for n in range(7, MAX_LINES + 7))]


async def test_a_reader_that_fell_behind_gets_a_new_snapshot_and_costs_no_memory(given: Given) -> None:
    async with aclosing(given.stream.read()) as slow, aclosing(given.stream.read()) as quick:
        await anext(slow)
        await anext(quick)
        for given.requests in range(1, MAX_BACKLOG + 2):
            given.changed.set()
            assert _kinds(await anext(quick)) == ["status"]
        assert _kinds(await anext(slow)) == ["snapshot"]
        given.requests += 1
        given.changed.set()
        assert _kinds(await anext(slow)) == ["status"]
    assert len(given.stream._backlog) == MAX_BACKLOG


async def test_a_silence_is_broken_by_a_comment(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_feed, "HEARTBEAT", 0.01)
    async with aclosing(given.stream.read()) as pieces:
        await anext(pieces)
        assert (await anext(pieces)).startswith(b":")


async def test_many_readers_share_each_look(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_feed, "MIN_REST", 10.0)
    streams = [given.stream.read() for _ in range(200)]
    snapshots = [await anext(stream) for stream in streams]
    assert given.looks == 1
    assert len(set(snapshots)) == 1
    given.requests += 1
    given.changed.set()
    pieces = [await anext(stream) for stream in streams]
    assert given.looks == 2
    assert all(_kinds(piece) == ["status"] for piece in pieces)
    for stream in streams:
        await stream.aclose()


def _kinds(piece: bytes) -> list[str]:
    return [kind for kind, _ in parsed(piece)]


def _texts(piece: bytes) -> list[str]:
    """The lines of worker `a` in a piece, in whichever event they are."""
    logs = [data.get("logs", data) for kind, data in parsed(piece) if kind in {"snapshot", "log"}]
    return [line["text"] for lines in logs for line in lines["a"]]


async def test_requests_are_told_once_for_each_change(given: Given) -> None:
    first = given.journal.begin("1", "messages", "curl/8")
    async with aclosing(given.stream.read()) as pieces:
        [(kind, snapshot)] = parsed(await anext(pieces))
        assert kind == "snapshot"
        assert [one["id"] for one in snapshot["requests"]] == ["1"]
        given.journal.begin("2", "messages", "")
        assert [one["id"] for one in dict(parsed(await anext(pieces)))["requests"]] == ["2"]
        given.journal.end(first, 200, 0.5)
        [told] = dict(parsed(await anext(pieces)))["requests"]
        assert (told["id"], told["phase"], told["status"]) == ("1", "ended", 200)
