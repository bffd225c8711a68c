"""The front door under attack, byte by byte, with a scripted worker behind it."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from draftd.settings import Settings
from tests.harness import QUICK, Served, alive, chat, fake, serving

Measured = Callable[[float], None]
ONE_AT_A_TIME = QUICK + "[limits]\nconcurrency = 1\n"


async def raw(served: Served, data: bytes, *, limit: float = 10.0) -> bytes:
    """Send bytes on a connection of their own; all that comes back until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.daemon.settings.port)
    try:
        writer.write(data)
        async with asyncio.timeout(limit):
            return await reader.read()
    finally:
        writer.close()


def request(
    body: bytes, *headers: str, host: str = "127.0.0.1", close: bool = True, version: str = "1.1"
) -> bytes:
    lines = [
        f"POST /v1/chat/completions HTTP/{version}",
        f"Host: {host}",
        "Content-Type: application/json",
        *headers,
    ]
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


BODY = json.dumps(chat("hi", model="a")).encode()


@pytest.mark.fault(27)
async def test_a_thousand_idle_connections_neither_slow_the_door_nor_stay(
    tmp_path: Path, measured: Measured
) -> None:
    async with serving(tmp_path, {"a": fake()}, connection_timeout=2.0) as served:
        port = served.daemon.settings.port
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(1000)]
        began = time.monotonic()
        assert (await served.get("/healthz")).status == 200
        measured(time.monotonic() - began)
        assert time.monotonic() - began < 0.1
        async with asyncio.timeout(10):
            ends = await asyncio.gather(*(reader.read() for reader, _ in idle))
        assert set(ends) == {b""}
        for _, writer in idle:
            writer.close()


@pytest.mark.fault(28)
async def test_slow_headers_and_slow_bodies_do_not_hold_a_connection(tmp_path: Path) -> None:
    promised = Settings.model_fields
    assert (promised["connection_timeout"].default, promised["body_timeout"].default) == (10, 30)
    async with serving(tmp_path, {"a": fake()}, connection_timeout=0.3, body_timeout=0.3) as served:
        assert await raw(served, b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow") == b""
        late = await raw(served, request(b'{"mod', "Content-Length: 500", close=False))
        assert status(late) == 408


@pytest.mark.fault(29)
async def test_a_client_that_stops_reading_costs_no_memory_and_frees_the_worker(
    tmp_path: Path, measured: Measured
) -> None:
    profile = fake(tables=ONE_AT_A_TIME)
    async with serving(tmp_path, {"a": profile}, write_timeout=0.5) as served:
        body = json.dumps(chat("[[tokens 400000]]", model="a", stream=True, max_tokens=400_000)).encode()
        before = psutil.Process().memory_info().rss
        reader, writer = await asyncio.open_connection("127.0.0.1", served.daemon.settings.port, limit=1024)
        writer.write(request(body, f"Content-Length: {len(body)}"))
        async with asyncio.timeout(10):
            await reader.readexactly(100)
        began = time.monotonic()
        assert (await served.ask("a")).status == 200  # had to wait for the slot of who does not read
        measured(time.monotonic() - began)
        assert psutil.Process().memory_info().rss - before < 20 * 2**20
        writer.close()


@pytest.mark.fault(31)
async def test_huge_and_compressed_bodies_are_refused_before_they_are_read(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        huge = await raw(served, request(b"{", "Content-Length: 1073741824", close=False))
        assert status(huge) == 413
        chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"
        endless = await raw(served, request(chunk * 40, "Transfer-Encoding: chunked", close=False))
        assert status(endless) == 413
        bomb = gzip.compress(b" " * 2**24)
        headers = ("Content-Encoding: gzip", f"Content-Length: {len(bomb)}")
        assert status(await raw(served, request(bomb, *headers))) == 415


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"max_tokens": ' + b"9" * 5000 + b"}",
        b'{"messages": "\xff\xfe"}',
        b"\xef\xbb\xbf{}",
        b'{"temperature": NaN}',
        json.dumps(chat("\ud800", model="a")).encode(),
        b"[]",
        b"",
        b"null",
    ],
    ids=["deep", "deep-objects", "digits", "utf8", "bom", "nan", "surrogate", "list", "empty", "null"],
)
async def test_hostile_json_is_the_clients_fault(
    hostile: Served, body: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = await raw(hostile, request(body, f"Content-Length: {len(body)}"))
    assert status(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
    said = capfd.readouterr()
    assert "9999999" not in said.out + said.err


@pytest.fixture
async def hostile(tmp_path: Path) -> Any:
    async with serving(tmp_path, {"a": fake()}) as served:
        yield served


@pytest.mark.fault(33, 34, 35)
async def test_what_reaches_a_worker_is_safe_and_what_was_routed(tmp_path: Path) -> None:
    log = tmp_path / "requests"
    profiles = {"a": fake("--log-requests", str(log)), "b": fake("--log-requests", str(log))}
    async with serving(tmp_path, profiles) as served:
        log.write_text("")
        twice = b'{"model": "a", "model": "b", "messages": [{"role": "user", "content": "x"}]}'
        answer = await raw(served, request(twice, f"Content-Length: {len(twice)}"))
        assert (status(answer), b'"model":"b"' in answer) == (200, True)
        unknown = await served.ask("nope")
        assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
        assert "a, b" in unknown.json["error"]["message"]
        bad = await served.ask(
            "a", adapters="/x", draft_model="/y", max_tokens=None, stream_options={}, stream=True
        )
        assert bad.events[-1] == "[DONE]"
        sent = [json.loads(line) for line in log.read_text().splitlines()]
        assert len(sent) == 2
        for body in sent:
            assert body["model"] == "fake"
            assert not {"adapters", "draft_model", "max_tokens"} & set(body)
            assert body["stream_options"] == {"include_usage": True}


@pytest.mark.fault(36)
@pytest.mark.parametrize(
    "data",
    [
        request(BODY, f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"),
        request(BODY, f"Content-Length: {len(BODY)}", "Content-Length: 3"),
        request(BODY, f"Content-Length: {len(BODY)}").replace(b"\r\n", b"\n"),
        request(BODY, f"Content-Length: {len(BODY)}", "X-Folded: a\r\n b"),
        request(BODY, f"Content-Length : {len(BODY)}"),
        request(BODY, f"Content-Length: +{len(BODY)}"),
        request(BODY, "Transfer-Encoding: chunked, identity"),
    ],
    ids=["both", "two lengths", "bare LF", "folded", "space", "plus", "encodings"],
)
async def test_an_ambiguous_request_is_refused_and_the_connection_closed(tmp_path: Path, data: bytes) -> None:
    log = tmp_path / "requests"
    async with serving(tmp_path, {"a": fake("--log-requests", str(log))}) as served:
        log.write_text("")
        smuggled = b"GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        answer = await raw(served, data.replace(b"Connection: close", b"X: y") + smuggled)
        assert status(answer) == 400
        assert answer.count(b"\r\nDate: ") == 1  # one answer, and nothing to what was smuggled behind
        assert log.read_text() == ""


@pytest.mark.fault(37)
async def test_hop_by_hop_headers_and_upgrades_change_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}, api_key="secret") as served:
        upgrade = ("Upgrade: websocket", f"Content-Length: {len(BODY)}", "Authorization: Bearer secret")
        plain = request(BODY, *upgrade, close=False).replace(
            b"\r\n\r\n", b"\r\nConnection: Upgrade, close\r\n\r\n", 1
        )
        assert status(await raw(served, plain)) == 200
        hidden = request(
            BODY, f"Content-Length: {len(BODY)}", "Connection: Authorization, close", close=False
        )
        assert status(await raw(served, hidden)) == 401


@pytest.mark.fault(38)
async def test_a_body_is_asked_for_only_from_who_may_send_it(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}, api_key="secret") as served:
        expect = ("Expect: 100-continue", f"Content-Length: {len(BODY)}")
        refused = await raw(served, request(BODY, *expect))
        assert (status(refused), b"100 Continue" in refused) == (401, False)
        token = "Authorization: Bearer secret"
        huge = request(b"", "Expect: 100-continue", "Content-Length: 1073741824", token)
        assert status(await raw(served, huge)) == 413
        asked = await raw(served, request(BODY, *expect, token))
        assert asked.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


@pytest.mark.fault(39)
async def test_old_and_odd_methods(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        stream = json.dumps(chat("hi", model="a", stream=True)).encode()
        old = await raw(served, request(stream, f"Content-Length: {len(stream)}", version="1.0"))
        head, _, body = old.partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert body.startswith(b"data: {")
        assert body.endswith(b"data: [DONE]\n\n")
        headed = await served.request("HEAD", "/v1/models")
        assert (headed.status, headed.text) == (200, "")
        options = await served.request("OPTIONS", "/v1/chat/completions")
        assert options.status == 405
        assert not [name for name in options.headers if name.lower().startswith("access-control")]


@pytest.mark.fault(40)
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Host": "localhost:8080"}, 200),
    ],
)
async def test_a_web_page_cannot_drive_the_daemon(
    tmp_path: Path, headers: dict[str, str], expected: int
) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        sent = {"Content-Type": "application/json", **headers}
        answer = await served.request("POST", "/v1/chat/completions", data=BODY, headers=sent)
        assert answer.status == expected
        if expected == 403:
            assert (await served.post("/api/workers/a/stop", headers=headers)).status == 403
            assert served.state("a") == "ready"
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.fault(40)
async def test_it_is_no_forward_proxy(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        absolute = b"GET http://127.0.0.1/api/status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        assert status(await raw(served, absolute)) == 403


async def test_a_configured_origin_is_let_in_and_may_read(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}, allowed_origins=("http://app.test",)) as served:
        origin = {"Origin": "http://app.test"}
        preflight = await served.request("OPTIONS", "/v1/chat/completions", headers=origin)
        assert (preflight.status, preflight.headers["Access-Control-Allow-Headers"]) == (
            204,
            "Authorization, Content-Type",
        )
        answer = await served.post("/v1/chat/completions", chat("hi", model="a", stream=True), headers=origin)
        assert answer.headers["Access-Control-Allow-Origin"] == "http://app.test"


@pytest.mark.fault(42)
async def test_neither_a_key_nor_a_prompt_is_ever_seen_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key, prompt = "canary-key-7f3a", "canary-prompt-91bd"
    async with serving(tmp_path, {"a": fake()}, api_key=key) as served:
        right = {"Authorization": f"Bearer {key}"}
        for text in (prompt, f"{prompt} [[status 500]]", f"{prompt} [[die-mid-stream]]"):
            await served.post("/v1/chat/completions", chat(text, model="a", stream=True), headers=right)
        await served.until(lambda: served.row("a")["restarts"] == 1 and served.state("a") == "ready")
        wrong = await served.post(
            "/v1/chat/completions", chat(prompt, model="a"), headers={"Authorization": "Bearer x"}
        )
        paths = ("/api/status", "/metrics", "/api/logs/a", "/v1/models")
        seen = [wrong.text, *[(await served.get(path, headers=right)).text for path in paths]]
        child = psutil.Process(served.row("a")["pid"])
        for process in (child, *child.children(recursive=True)):
            assert alive(process.pid)
            seen += [*process.cmdline(), *process.environ().values()]
    seen += [file.read_text() for file in (tmp_path / "state").rglob("*") if file.is_file()]
    seen += list(capfd.readouterr())
    assert len("".join(seen)) > 1000
    assert key not in "".join(seen)
    assert prompt not in "".join(seen)


@pytest.mark.fault(43)
async def test_names_that_clients_invent_make_no_new_series(tmp_path: Path, measured: Measured) -> None:
    """10,000 of them, models and paths, one after the other on one connection."""
    async with serving(tmp_path, {"a": fake()}) as served:
        await served.ask("nope")
        await served.get("/nope")
        before = set(await served.metrics())
        began = time.monotonic()
        asked = b"".join(_invented(number) for number in range(5000))
        answers = await raw(
            served, asked + b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", limit=60
        )
        measured(time.monotonic() - began)
        assert answers.count(b"HTTP/1.1 404 ") == 10_000
        assert set(await served.metrics()) == before


def _invented(number: int) -> bytes:
    body = json.dumps(chat("hi", model=f"nope-{number}")).encode()
    path = f"GET /v1/nope-{number} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    return request(body, f"Content-Length: {len(body)}", close=False) + path
