"""Requests that only aiohttp reads: expectations, old and odd methods, and what is not HTTP at all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness import Served, chat, fake, serving
from tests.web.raw_http import Wire

BODY = json.dumps(chat("hi", model="a")).encode()
KEY = "Authorization: Bearer secret"
EXPECT = "Expect: 100-continue"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("served"), {"a": fake()}) as running:
        yield running


@pytest.mark.fault(38)
async def test_a_body_is_asked_for_only_from_who_may_send_it(wire: Wire, tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}, api_key="secret") as served:
        refused = await wire.ask(served, wire.post(BODY, EXPECT))
        assert (refused.status, refused.interim) == (401, ())
        huge = await wire.ask(served, wire.request(b"", EXPECT, "Content-Length: 1073741824", KEY))
        assert (huge.status, huge.interim) == (413, ())
        odd = await wire.ask(served, wire.post(BODY, "Expect: a miracle", KEY))
        assert (odd.status, odd.interim) == (417, ())
        for answer in (refused, huge, odd):
            assert len(answer.headers["x-request-id"]) == 32
        async with wire.connect(served) as connection:
            connection.send(wire.request(b"", f"Content-Length: {len(BODY)}", EXPECT, KEY))
            assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.send(BODY)
            assert (await connection.answer()).status == 200
        counted = await served.metrics(headers={"Authorization": "Bearer secret"})
        series = 'draftd_requests_total{endpoint="chat.completions",profile="%s",status="%d"}'
        assert [counted[series % ("_unknown", status)] for status in (401, 413, 417)] == [1, 1, 1]
        assert counted[series % ("a", 200)] == 1


@pytest.mark.fault(39)
async def test_old_and_odd_methods(wire: Wire, served: Served) -> None:
    stream = json.dumps(chat("hi", model="a", stream=True)).encode()
    old = await wire.ask(served, wire.post(stream, version="1.0"))
    assert "transfer-encoding" not in old.headers
    assert old.body.startswith(b"data: {")
    assert old.body.endswith(b"data: [DONE]\n\n")
    async with wire.connect(served, used=True) as connection:
        connection.send(wire.request(b"", "Connection: close", method="HEAD", path="/v1/models"))
        head = await connection.rest()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert head.endswith(b"\r\n\r\n")
    options = await wire.ask(served, wire.request(b"", method="OPTIONS"))
    assert (options.status, options.headers["allow"]) == (405, "POST")
    assert not [name for name in options.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello there\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"]
)
@pytest.mark.parametrize("used", [False, True])
async def test_what_is_not_http_gets_an_error_in_the_usual_shape(
    wire: Wire, served: Served, data: bytes, used: bool
) -> None:
    async with wire.connect(served, used=used) as connection:
        connection.send(data + b"canary")
        answer = await connection.answer()
        assert await connection.rest() == b""
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert (answer.headers["server"], answer.headers["content-type"]) == ("draftd", "application/json")
    assert len(answer.headers["x-request-id"]) == 32
    assert b"canary" not in answer.body


@pytest.mark.fault(77)
@pytest.mark.parametrize("chunks", [b"5zz\r\n", b"5\r\nhello!\r\n0\r\n\r\n", b"5;\x00\r\nhello\r\n"])
@pytest.mark.parametrize("cut", [0, 1])
async def test_chunks_that_http_does_not_have_are_refused_at_once(
    wire: Wire, served: Served, chunks: bytes, cut: int
) -> None:
    head = wire.request(b"", "Transfer-Encoding: chunked")
    async with wire.connect(served, used=True) as connection:
        connection.send(head + chunks[:cut])
        assert (await served.get("/healthz")).status == 200  # by now it has been read
        connection.send(chunks[cut:])
        answer = await connection.answer(limit=5)
        assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
        assert await connection.rest() == b""


@pytest.mark.fault(77)
@pytest.mark.parametrize("version", ["2.0", "0.9", "3.0", "1.2", "9.9"])
async def test_a_version_that_is_not_spoken_here_is_refused(wire: Wire, served: Served, version: str) -> None:
    async with wire.connect(served, used=True) as connection:
        connection.send(wire.post(BODY, version=version))
        answer = await connection.answer()
        assert await connection.rest() == b""
    assert (answer.status, answer.error["code"]) == (505, "http_version_not_supported")
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.fault(77)
@pytest.mark.parametrize(
    ("make", "status", "says"),
    [
        (lambda w: w.post(BODY, "Cookie: a=" + "x" * 9000), 431, "cookies"),
        (lambda w: w.post(BODY, "X-" + "y" * 9000 + ": a"), 431, "header is longer"),
        (lambda w: w.post(BODY, *(f"X-{n}: a" for n in range(130))), 431, "more than 128 headers"),
        (lambda w: w.request(b"", method="GET", path="/healthz?" + "x" * 9000), 414, "request line"),
        (lambda w: w.post(BODY, "Cookie: a=" + "x" * 8000), 200, ""),
        (lambda w: w.post(BODY, "Cookie: a=" + "x" * 5000, "X-More: " + "x" * 5000), 200, ""),
    ],
    ids=["cookie", "name", "many", "line", "fits", "two that fit"],
)
async def test_headers_that_are_too_large_are_refused_with_the_reason(
    wire: Wire, served: Served, make: Callable[[Wire], bytes], status: int, says: str
) -> None:
    async with wire.connect(served, used=True) as connection:
        connection.send(make(wire))
        answer = await connection.answer()
    assert answer.status == status
    if says:
        assert says in answer.error["message"]
        assert b"xxx" not in answer.body


@pytest.mark.fault(76)
@pytest.mark.parametrize(
    "twice",
    [
        ("Host: evil.test",),  # each request has one already
        ("Host: 127.0.0.1",),
        ("Content-Type: text/plain",),
        ("Authorization: Bearer y", "Authorization: Bearer x"),
        ("X-Api-Key: y", "x-api-key: x"),
        ("Origin: http://127.0.0.1", "Origin: http://127.0.0.1"),
    ],
    ids=lambda lines: lines[-1],
)
async def test_a_header_that_lets_in_comes_once(wire: Wire, served: Served, twice: tuple[str, ...]) -> None:
    answer = await wire.ask(served, wire.post(BODY, *twice))
    assert answer.status == 400


@pytest.mark.fault(76)
@pytest.mark.parametrize(
    "host", ["[::1]evil.com", "127.0.0.1:80@evil.com", "127.0.0.1:evil.com", "a@127.0.0.1", ""]
)
async def test_a_host_that_only_begins_as_ours_is_refused(wire: Wire, served: Served, host: str) -> None:
    assert (await wire.ask(served, wire.post(BODY, host=host))).status == 403
