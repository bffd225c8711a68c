"""One connection, two readers: plain requests, and aiohttp for all others, in any order and cut anywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from draftd.web import fast_http
from draftd.web.answer_stream import Relay
from tests.harness import Served, chat, fake, serving
from tests.web.test_aiohttp_app import raw, request, status

BODY = json.dumps(chat("hi", model="a")).encode()
PLAIN = request(BODY, f"Content-Length: {len(BODY)}", close=False)
CHUNKED = request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), "Transfer-Encoding: chunked", close=False)
LAST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, {"a": fake()}) as running:
        yield running


async def test_requests_of_both_kinds_are_answered_in_order_on_one_connection(served: Served) -> None:
    stream = json.dumps(chat("hi", model="a", stream=True)).encode()
    unknown = json.dumps(chat("hi", model="nope")).encode()
    asked = [
        PLAIN,
        request(stream, f"Content-Length: {len(stream)}", close=False),
        request(unknown, f"Content-Length: {len(unknown)}", close=False),
        CHUNKED,
        PLAIN,
        LAST,
    ]
    answers = (await raw(served, b"".join(asked))).split(b"HTTP/1.1 ")[1:]
    assert [int(answer[:3]) for answer in answers] == [200, 200, 404, 200, 200, 200]
    heads, bodies = zip(*(answer.split(b"\r\n\r\n", 1) for answer in answers), strict=True)
    assert [b"chunked" in head for head in heads] == [False, True, False, False, False, False]
    assert all(b"\r\nDate: " in head for head in heads)
    assert bodies[1].endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    whole = [json.loads(body)["choices"][0]["message"] for body in (bodies[0], bodies[3], bodies[4])]
    assert whole[0] == whole[1] == whole[2]


@pytest.mark.parametrize("cut", [1, 20, PLAIN.index(b"\r\n\r\n") + 4, len(PLAIN) - 1])
async def test_a_request_may_come_in_pieces(served: Served, cut: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.daemon.settings.port)
    writer.write(PLAIN[:cut])
    before = await served.get("/healthz")  # by now the first piece was read
    assert before.status == 200
    writer.write(PLAIN[cut:] + LAST)
    async with asyncio.timeout(10):
        answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"200"]
    writer.close()


async def test_a_body_that_is_late_is_still_taken(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = asyncio.Event()
    others = fast_http.FastConnection._fall_back

    def hand_over(self: fast_http.FastConnection) -> None:
        handed.set()
        others(self)

    monkeypatch.setattr(fast_http, "PATIENCE", 0.01)
    monkeypatch.setattr(fast_http.FastConnection, "_fall_back", hand_over)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.daemon.settings.port)
    writer.write(PLAIN[:-5])
    async with asyncio.timeout(10):
        await handed.wait()
        writer.write(PLAIN[-5:] + LAST)
        assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 2
    writer.close()


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello there\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
)
async def test_what_is_no_http_gets_an_error_in_the_usual_shape(served: Served, data: bytes) -> None:
    answer = await raw(served, data + b"canary")
    assert status(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
    assert b"canary" not in answer


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_fault_of_ours_is_a_500_or_cuts_the_stream_that_has_begun(
    served: Served, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    """Whichever of the two readers has the request."""
    feed, fed = Relay.feed, []

    def broken(self: Relay, data: bytes) -> bytes:
        fed.append(data)
        if len(fed) > fine:
            raise RuntimeError("canary")
        return feed(self, data)

    monkeypatch.setattr(Relay, "feed", broken)
    for fine in (0, 1):
        fed.clear()
        body = json.dumps(chat("[[slow 0.05]]", model="a", stream=True)).encode()
        sent = (
            request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), "Transfer-Encoding: chunked")
            if chunked
            else request(body, f"Content-Length: {len(body)}", close=False)
        )
        answer = await raw(served, sent if fine or chunked else sent + LAST)
        assert answer.count(b"HTTP/1.1 ") == (1 if fine or chunked else 2)
        assert status(answer) == (200 if fine else 500)
        assert b"canary" not in answer
        assert not answer.endswith(b"0\r\n\r\n")
