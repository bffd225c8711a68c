"""Forms and files that are too large for memory reach the server of a `command`, and leave nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
import pytest_asyncio

from tests.harness import QUICK, Served, fake, serving
from tests.web.raw_http import RawAnswer, Wire
from tests.web.test_passed_answer import FORM, MARK, SERVER

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.fault(180)]

PATH = "/v1/audio/transcriptions?order=hash"
LIMIT = 200_000_000
PIECE = bytes(range(256)) * 4096


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    command = [sys.executable, str(SERVER), "--port", "{port}"]
    profile = f'model = "org/own"\ncommand = {json.dumps(command)}\n{QUICK}'
    folder = tmp_path_factory.mktemp("uploads")
    async with serving(folder, {"own": profile}, max_body_bytes=10_000, max_upload_bytes=LIMIT) as running:
        yield running


async def upload(
    wire: Wire, served: Served, *body: bytes, kind: str = FORM, path: str = PATH, length: int | None = None
) -> RawAnswer:
    """Send a body of these pieces, no faster than it is taken."""
    told = sum(map(len, body)) if length is None else length
    async with wire.connect(served) as connection:
        connection.send(wire.request(b"", f"Content-Length: {told}", path=path, kind=kind))
        for piece in body:
            connection.send(piece)
            await connection.writer.drain()
        return await connection.answer()


async def peak_of(work: asyncio.Task[RawAnswer]) -> int:
    """The most memory that this process had while it worked, in bytes."""
    peak, process = 0, psutil.Process()
    while not work.done():
        peak = max(peak, process.memory_info().rss)
        await asyncio.wait([work], timeout=0.01)
    return peak


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[Any]:
    """The files that are opened for bodies."""
    opened: asyncio.Queue[Any] = asyncio.Queue()

    def noted(**options: Any) -> Any:
        opened.put_nowait(file := make(**options))
        return file

    make = tempfile.TemporaryFile
    monkeypatch.setattr("draftd.web.uploads.tempfile.TemporaryFile", noted)
    return opened


@pytest.mark.thorough
async def test_a_recording_of_50_mb_takes_no_memory(served: Served) -> None:
    wire, count = Wire("aiohttp"), 50
    before, after = (MARK % (b"file", b""))[:-2], MARK % (b"model", b"own") + b"--xy--\r\n"
    body = [before, *[PIECE] * count, b"\r\n" + after]
    rss = psutil.Process().memory_info().rss
    work = asyncio.create_task(upload(wire, served, *body))
    peak = await peak_of(work)
    answer = work.result()
    sent = b"\r\n" + after.replace(b"\r\n\r\nown\r\n", b"\r\n\r\norg/own\r\n")
    digest = hashlib.sha256(before)
    for piece in [*[PIECE] * count, sent]:
        digest.update(piece)
    assert answer.json == {"length": len(before) + len(PIECE) * count + len(sent), "hash": digest.hexdigest()}
    assert peak - rss < 25 * 2**20


async def test_a_file_whose_model_stands_in_the_query_goes_as_it_is(wire: Wire, served: Served) -> None:
    answer = await upload(wire, served, PIECE, b"end", kind="audio/wav", path=f"{PATH}&model=own")
    assert answer.json == {"length": len(PIECE) + 3, "hash": hashlib.sha256(PIECE + b"end").hexdigest()}


async def test_one_in_chunks_is_told_its_length(wire: Wire, served: Served) -> None:
    async with wire.connect(served) as connection:
        head = wire.request(b"", "Transfer-Encoding: chunked", path=f"{PATH}&model=own", kind="audio/wav")
        connection.send(head + b"4\r\nwave\r\n0\r\n\r\n")
        answer = await connection.answer()
    assert answer.json == {"length": 4, "hash": hashlib.sha256(b"wave").hexdigest()}


async def test_a_server_that_refuses_before_it_has_read_is_heard(wire: Wire, served: Served) -> None:
    path = "/v1/audio/transcriptions?order=early&model=own"
    answer = await upload(wire, served, *[PIECE] * 12, kind="audio/wav", path=path)
    assert (answer.status, answer.error["message"]) == (413, "too long for me")


async def test_too_large_a_file_is_refused_by_its_own_limit(wire: Wire, served: Served) -> None:
    answer = await upload(wire, served, length=LIMIT + 1)
    assert answer.status == 413
    assert "max_upload_bytes" in answer.error["message"]
    chat = await wire.ask(served, wire.request(b"", "Content-Length: 10001"))
    assert "max_body_bytes" in chat.error["message"]


async def test_an_unknown_model_is_told_and_no_file_is_left(
    wire: Wire, served: Served, files: asyncio.Queue[Any]
) -> None:
    form = MARK % (b"file", PIECE), MARK % (b"model", b"x" * 20_000) + b"--xy--\r\n"
    answer = await upload(wire, served, *form)
    assert answer.status == 404
    assert len(answer.body) < 1000
    assert files.get_nowait().closed


async def test_a_client_that_leaves_leaves_no_file(
    wire: Wire, served: Served, files: asyncio.Queue[Any]
) -> None:
    async with wire.connect(served) as connection:
        connection.send(wire.request(b"", f"Content-Length: {LIMIT}", path=PATH, kind=FORM))
        connection.send(PIECE)
        file = await files.get()
        assert not file.closed
    await served.daemon.proxy.until_idle()
    assert file.closed


async def test_a_file_that_comes_no_further_is_told_as_silence_and_not_as_slowness(tmp_path: Path) -> None:
    wire = Wire("aiohttp")
    async with serving(tmp_path, {"a": fake()}, ready=False, body_timeout=0.2) as served:
        answer = await upload(wire, served, b"wave", kind="audio/wav", path=f"{PATH}&model=a", length=LIMIT)
    assert (answer.status, answer.error["message"]) == (408, "nothing of the body came for 0.2 s")


async def test_a_disk_that_fails_is_not_the_servers_fault(
    wire: Wire, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("draftd.web.uploads.os.pread", Mock(side_effect=OSError(5, "Input/output error")))
    named = (
        MARK % (b"file", PIECE),
        MARK % (b"model", b"own") + b"--xy--\r\n",
    )  # its name is read before it is sent
    for body, kind, path in (((PIECE,), "audio/wav", f"{PATH}&model=own"), (named, FORM, PATH)):
        answer = await upload(wire, served, *body, kind=kind, path=path)
        assert (answer.status, answer.error["code"]) == (507, "no_space")
        assert answer.error["message"].endswith("cannot be read: Input/output error")


async def test_a_folder_without_room_is_an_answer(
    wire: Wire, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: object, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("draftd.web.uploads._write_all", full)
    answer = await upload(wire, served, PIECE, kind="audio/wav", path=f"{PATH}&model=own")
    assert (answer.status, answer.error["code"]) == (507, "no_space")
    assert "No space left on device" in answer.error["message"]
