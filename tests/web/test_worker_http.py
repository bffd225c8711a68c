"""What a worker may answer, byte for byte, and how it may fail to answer."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from draftd.errors import RequestError
from draftd.web import worker_http
from draftd.web.worker_http import (
    BURST,
    MAX_BUFFERED,
    BrokenOffError,
    NotSentError,
    WorkerConnection,
    connect,
)
from tests.harness import free_ports

HEAD = b"HTTP/1.1 200 OK\r\n"
HEADERS = {"X-More": "told"}


@asynccontextmanager
async def answering(*pieces: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that reads one request, writes the pieces and closes; its port, and what it read."""
    read: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        read.append(head + await reader.readexactly(length))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], read


async def answer_of(*pieces: bytes, payload: bytes = b"{}") -> tuple[int, bytes, list[bytes]]:
    async with asyncio.timeout(10), answering(*pieces) as (port, read):
        connection = await connect(port)
        try:
            await connection.send(port, "/v1/x", payload, HEADERS)
            body = b""
            while piece := await connection.read():
                body += piece
            return connection.status, body, read
        finally:
            connection.close()


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", b"one", b"two"),
        (HEAD + b"Content-Length: 6\r\n\r\n", b"onetwo"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n", b"3\r\ntwo\r\n0\r\n\r\n"),
        (b"HTTP/1.1 200 ", b"OK\r\nContent-Length: 6\r", b"\n\r\nonetwo and more"),
        (b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + HEAD, b"Content-Length: 6\r\n\r\nonetwo"),
    ],
    ids=["until closed", "length", "chunked", "in pieces", "hints first"],
)
async def test_every_way_to_mark_the_end_of_a_body_is_read(pieces: tuple[bytes, ...]) -> None:
    assert (await answer_of(*pieces))[:2] == (200, b"onetwo")


async def test_the_headers_are_those_of_the_answer_alone() -> None:
    hints = b"HTTP/1.1 103 Hints\r\nX-Kind: hint\r\nLink: x\r\n\r\n"
    chunked = (
        b"X-KIND:  a\r\nX-Kind: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\nTrailer: x\r\n\r\n"
    )
    async with asyncio.timeout(10), answering(hints + HEAD, chunked) as (port, _):
        connection = await connect(port)
        try:
            await connection.send(port, "/v1/x", b"{}", HEADERS)
            while await connection.read():
                pass
            assert connection.headers == {"x-kind": "a", "transfer-encoding": "chunked"}
        finally:
            connection.close()


async def test_a_request_larger_than_the_kernel_takes_at_once_arrives_whole() -> None:
    payload = b"x" * 20_000_000
    status, _, read = await answer_of(b"HTTP/1.0 400 Bad\r\n\r\nno", payload=payload)
    assert status == 400
    assert read[0].endswith(b"\r\nX-More: told\r\n\r\n" + payload)


@pytest.mark.parametrize(
    ("pieces", "words", "cause"),
    [
        ((), "broke off before it answered", "no answer"),
        ((b"hello there\r\n\r\n",), "is not HTTP", "not speak HTTP"),
        ((b"HTTP/1.1 103 Early Hints\r\n\r\n",), "broke off before it answered", "no answer"),
    ],
)
async def test_a_missing_answer_is_not_taken_for_an_empty_one(
    pieces: tuple[bytes, ...], words: str, cause: str
) -> None:
    with pytest.raises(BrokenOffError, match=words) as caught:
        await answer_of(*pieces)
    assert cause in str(caught.value.__cause__)
    assert str(caught.value.ended()) == "the worker ended before it answered"
    assert caught.value.ended().code == "worker_lost"


async def test_an_answer_that_breaks_off_is_an_error() -> None:
    with pytest.raises(BrokenOffError, match="in the middle of its answer"):
        await answer_of(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n", b"nonsense\r\n")


async def test_a_worker_that_does_not_listen_is_known_at_once_and_was_sent_nothing() -> None:
    with pytest.raises(NotSentError, match="no connection to the worker") as caught:
        await connect(free_ports())
    assert (caught.value.status, caught.value.code) == (503, "worker_unavailable")


@pytest.mark.parametrize("somebody_listens", [True, False])
async def test_a_connection_that_is_not_there_at_once_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, somebody_listens: bool
) -> None:
    monkeypatch.setattr(worker_http, "_is_connected", lambda _: False)
    if somebody_listens:
        assert (await answer_of(HEAD + b"Content-Length: 6\r\n\r\n", b"onetwo"))[:2] == (200, b"onetwo")
    else:
        with pytest.raises(NotSentError):
            await connect(free_ports())


async def test_without_a_free_file_descriptor_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(self: WorkerConnection) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(WorkerConnection, "__init__", none_left)
    with pytest.raises(NotSentError):
        await connect(1)


async def test_what_is_not_read_waits_with_the_worker() -> None:
    size = 40 * MAX_BUFFERED
    async with asyncio.timeout(10), answering(b"HTTP/1.0 200 OK\r\n\r\n", b"x" * size) as (port, _):
        connection = await connect(port)
        try:
            await connection.send(port, "/v1/x", b"{}", HEADERS)
            while connection._reading or connection._pause:  # noqa: ASYNC110 - until it had enough
                await asyncio.sleep(0)
            assert connection._buffered < 3 * MAX_BUFFERED
            total = 0
            while piece := await connection.read():
                total += len(piece)
            assert total == size
        finally:
            connection.close()


async def test_what_comes_faster_than_it_is_read_is_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a read of many tokens the next ones may accumulate, so that they cost one wakeup and not ten."""
    monkeypatch.setattr(worker_http, "BURST_PAUSE", 0.5)
    head, many, few = b"HTTP/1.0 200 OK\r\n\r\n", b"x" * BURST, b"y"
    first_was_read = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + many)
        await first_was_read.wait()
        for _ in range(10):
            writer.write(few)
            await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with asyncio.timeout(10), server:
        port = server.sockets[0].getsockname()[1]
        connection = await connect(port)
        try:
            await connection.send(port, "/v1/x", b"{}", HEADERS)
            assert await connection.read() == many
            first_was_read.set()
            assert await connection.read() == few * 10
        finally:
            connection.close()


@pytest.mark.parametrize(
    ("body", "message", "code", "param"),
    [
        (b'{"error": {"message": "m", "code": "c", "param": "p"}}', "m", "c", "p"),
        (b'{"error": {"message": "m", "code": 5, "param": null}}', "m", "5", None),
        (b'{"error": "m"}', "m", None, None),
        (b'{"error": {"message": null}}', "the worker answered with status 400", None, None),
        (b'{"error": []}', "[]", None, None),
        (b"5", "the worker answered with status 400", None, None),
    ],
)
async def test_what_a_worker_refuses_keeps_its_reason(
    body: bytes, message: str, code: str | None, param: str | None
) -> None:
    async with asyncio.timeout(10), answering(b"HTTP/1.0 400 Bad\r\n\r\n" + body) as (port, _):
        with pytest.raises(RequestError) as caught:
            await worker_http.post(port, "/v1/x", b"{}", {})
    assert (str(caught.value), caught.value.code, caught.value.param) == (message, code, param)


async def test_a_server_that_keeps_the_connection_behind_an_error_does_not_hold_the_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_http, "ERROR_TIMEOUT", 0.1)
    told = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 413 Large\r\n\r\n{"error": "too large"}')
        await told.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with asyncio.timeout(10), server:
        with pytest.raises(RequestError, match="too large") as caught:
            await worker_http.post(server.sockets[0].getsockname()[1], "/v1/x", b"{}", {})
        told.set()
    assert caught.value.status == 413
