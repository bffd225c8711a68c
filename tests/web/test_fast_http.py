"""The fast transport: which requests it reads, what it reads from them, and when aiohttp gets the connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.web import fast_http
from tests.harness import fake, serving
from tests.web.raw_http import Wire

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n"
    b"Content-Type:application/json  \r\nContent-Length: 12\r\n\r\n"
)


def test_a_plain_request_is_read_whatever_follows() -> None:
    for data in (HEAD, HEAD + b"{}", bytearray(HEAD + b"x" * 100_000)):
        found = fast_http.read_head(data)
        assert found is not None
        head, size = found
        assert (head.method, head.path, head.target) == (
            "POST",
            "/v1/chat/completions",
            "/v1/chat/completions",
        )
        assert (size, head.length) == (len(HEAD), 12)
        assert head.headers == {
            "Host": "127.0.0.1:8080",
            "Content-Type": "application/json",
            "Content-Length": "12",
        }


@pytest.mark.parametrize(
    "field", [b"Connection: Keep-Alive", b"X-Empty:", b"Accept: */*", b"!#$%&'*+.^_`|~: x"]
)
def test_headers_that_change_nothing_are_plain(field: bytes) -> None:
    assert fast_http.read_head(HEAD.replace(b"\r\n", b"\r\n" + field + b"\r\n", 1)) is not None


@pytest.mark.parametrize(
    "field",
    [
        b"Transfer-Encoding: chunked",
        b"Content-Encoding: gzip",
        b"Expect: 100-continue",
        b"Upgrade: websocket",
        b"Trailer: x",
        b"Proxy-Connection: close",
        b"Origin: http://a",
        b"Connection: close",
        b"Connection: keep-alive, Authorization",
        b"Content-Length: 12",
        b"CONTENT-LENGTH: 13",
        b"Host: other",
        b"X-Folded: a\r\n b",
        b"X-Bare: a\nHost: b",
        b"X-Carriage: a\rb",
        b"X-Nul: a\0b",
        b"X-Tab: a\tb",
        b"X-Latin: \xe9",
        b"X-Space : a",
        b" X: a",
        b": a",
        b"no colon",
        b"X-Long: " + b"a" * fast_http.MAX_HEAD,
    ],
)
def test_a_field_with_any_doubt_is_not_plain(field: bytes) -> None:
    assert fast_http.read_head(HEAD.replace(b"\r\n", b"\r\n" + field + b"\r\n", 1)) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"POST", b"GET"),
        (b"POST", b"post"),
        (b"POST", b"\r\nPOST"),
        (b" /v1", b"  /v1"),
        (b"/v1/chat", b"http://127.0.0.1/v1/chat"),
        (b"completions", b"completions?a=b"),
        (b"completions", b"%63ompletions"),
        (b"1.1", b"1.0"),
        (b"1.1\r\n", b"1.1\n"),
        (b"Length: 12", b"Length: +12"),
        (b"Length: 12", b"Length: 1 2"),
        (b"Length: 12", b"Length: 0x12"),
        (b"Length: 12", b"Length: -1"),
        (b"Length: 12", b"Length: "),
        (b"Length: 12", b"Length: " + b"9" * 20),
        (b"Content-Length", b"Content-Lengths"),
        (b"\r\n\r\n", b"\r\n"),
        (b"\r\n\r\n", b"\n\n"),
    ],
)
def test_a_head_with_any_doubt_is_not_plain(old: bytes, new: bytes) -> None:
    assert old in HEAD
    assert fast_http.read_head(HEAD.replace(old, new, 1)) is None


@given(st.integers(0, len(HEAD) - 1), st.binary(max_size=3))
def test_what_is_not_all_there_is_not_plain_and_odd_bytes_do_no_harm(cut: int, odd: bytes) -> None:
    assert fast_http.read_head(HEAD[:cut]) is None
    found = fast_http.read_head(HEAD[:cut] + odd + HEAD[cut:])
    assert found is None or found[0].length >= 0


async def test_a_body_that_is_late_is_still_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fell_back = asyncio.Event()
    fall_back = fast_http.FastConnection._fall_back

    def watched(self: fast_http.FastConnection) -> None:
        fell_back.set()
        fall_back(self)

    monkeypatch.setattr(fast_http.FastConnection, "_fall_back", watched)
    sent = Wire("fast").chat()
    async with serving(tmp_path, {"a": fake()}) as served, Wire("fast").connect(served) as connection:
        connection.send(sent[:-5])
        async with asyncio.timeout(10):
            await fell_back.wait()
        connection.send(sent[-5:] + sent)
        assert [(await connection.answer()).status for _ in range(2)] == [200, 200]
