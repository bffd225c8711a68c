"""Requests that are passed on to the server of a `command`, and its answers, over both transports."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.harness import QUICK, Served, fake, serving
from tests.web.raw_http import RawAnswer, Wire

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.fault(121)]

SERVER = Path(__file__).parents[1] / "echo_server.py"
NATIVE = '["messages", "count_tokens", "responses"]'
ADDRESSES = [
    ("/v1/embeddings", "/v1/embeddings", "embeddings"),
    ("/rerank", "/v1/rerank", "rerank"),
    ("/v1/audio/speech", "/v1/audio/speech", "audio"),
    ("//v1/images/generations/", "/v1/images/generations", "images"),
]
FORM = "multipart/form-data; boundary=xy"
MARK = b'--xy\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    command = [sys.executable, str(SERVER), "--port", "{port}"]
    own = f'model = "org/own"\ncommand = {json.dumps(command)}\naliases = ["gpt-4o"]\nnative = {NATIVE}\n{QUICK}'
    folder = tmp_path_factory.mktemp("served")
    async with serving(folder, {"a": fake(), "own": own}, max_body_bytes=3_000_000) as running:
        yield running


def told(answer: RawAnswer) -> tuple[str, str, bytes]:
    """What the server says it was sent: the path, the content type, and the body."""
    body = answer.json
    return body["path"], body["kind"], base64.b64decode(body["body"])


@pytest.mark.parametrize(("typed", "address", "kind"), ADDRESSES)
async def test_a_body_goes_to_the_server_that_its_model_names(
    wire: Wire, served: Served, typed: str, address: str, kind: str
) -> None:
    body = json.dumps({"model": "gpt-4o", "input": ["hi"]}).encode()
    key = f'draftd_requests_total{{endpoint="{kind}",profile="own",status="200"}}'
    before = (await served.metrics()).get(key, 0)
    answer = await wire.ask(served, wire.post(body, path=typed))
    assert answer.status == 200
    path, content_type, sent = told(answer)
    assert (path, content_type) == (address, "application/json")
    assert json.loads(sent) == {"model": "org/own", "input": ["hi"]}
    assert answer.headers["x-draftd-profile"] == "own"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert (await served.metrics())[key] == before + 1


async def test_a_form_goes_there_byte_by_byte_whatever_its_size(wire: Wire, served: Served) -> None:
    sound = bytes(range(256)) * 8000
    body = MARK % (b"file", sound) + MARK % (b"model", b"own") + b"--xy--\r\n"
    answer = await wire.ask(served, wire.post(body, path="/v1/audio/transcriptions", kind=FORM))
    assert told(answer) == (
        "/v1/audio/transcriptions",
        FORM,
        body.replace(b"\r\n\r\nown\r\n", b"\r\n\r\norg/own\r\n"),
    )


async def test_no_address_ends_the_line_that_it_stands_in(wire: Wire, served: Served) -> None:
    path = "/v1/audio/x%20HTTP/1.0"
    answer = await wire.ask(served, wire.post(b'{"model": "own"}', path=path))
    assert told(answer)[0] == path


async def test_a_body_that_is_too_large_is_refused(wire: Wire, served: Served) -> None:
    answer = await wire.ask(served, wire.request(b"", "Content-Length: 3000001", path="/v1/audio/speech"))
    assert answer.status == 413


async def test_an_answer_is_passed_on_while_it_comes(wire: Wire, served: Served) -> None:
    path = "/v1/audio/speech?order=stream"
    async with wire.connect(served) as connection:
        connection.send(wire.post(b'{"model": "own"}', path=path))
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert b"Content-Type: audio/mpeg" in head
        assert await connection.reader.readexactly(8) == b"3\r\n\x00\xff\x01\r\n"
        await served.post("/v1/audio/speech?order=go-on", {"model": "own"})
        assert await connection.reader.readexactly(12) == b"2\r\n\x02\x03\r\n0\r\n\r\n"


async def test_an_answer_that_breaks_off_is_cut_without_an_event_in_it(wire: Wire, served: Served) -> None:
    restarts = served.row("own")["restarts"]
    async with wire.connect(served) as connection:
        connection.send(wire.post(b'{"model": "own"}', path="/v1/audio/speech?order=die"))
        asked = asyncio.create_task(connection.answer())
        await served.until_queue("own")
        await served.post("/v1/audio/speech?order=go-on", {"model": "own"})
        answer = await asked
    assert (answer.status, answer.body, answer.whole) == (200, b"\x00\xff\x01", False)
    await served.until(lambda: served.row("own")["restarts"] > restarts and served.state("own") == "ready")


async def test_its_status_and_its_errors_are_the_client_s_to_see(wire: Wire, served: Served) -> None:
    made = await wire.ask(served, wire.post(b'{"model": "own"}', path="/v1/images/edits?order=made"))
    assert made.status == 201
    answer = await wire.ask(served, wire.post(b'{"model": "own"}', path="/v1/embeddings?order=refuse"))
    assert answer.status == 422
    assert (answer.error["message"], answer.error["code"]) == ("too odd", "odd")


async def test_an_answer_without_a_length_ends_with_its_connection(wire: Wire, served: Served) -> None:
    answer = await wire.ask(served, wire.post(b'{"model": "own"}', path="/v1/embeddings?order=old"))
    assert (answer.status, answer.body, answer.whole) == (200, b"old", True)
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_what_a_server_says_before_its_answer_does_not_hide_that_the_answer_breaks_off(
    wire: Wire, served: Served
) -> None:
    answer = await wire.ask(served, wire.post(b'{"model": "own"}', path="/v1/audio/speech?order=half"))
    assert (answer.status, answer.body, answer.whole) == (200, b"hal", False)
    assert answer.headers["content-type"] == "audio/mpeg"


async def test_a_model_that_nobody_has_is_told_as_such(wire: Wire, served: Served) -> None:
    answer = await wire.ask(served, wire.post(b'{"model": "nobody"}', path="/v1/embeddings"))
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("address", "body"),
    [
        ("/v1/messages", {"model": "own", "messages": [], "container": {"x": 1}}),
        ("/v1/messages/count_tokens", {"model": "gpt-4o", "what": None}),
        ("/responses", {"model": "own", "previous_response_id": "resp_1"}),
    ],
)
async def test_a_dialect_that_it_speaks_itself_is_left_to_it(
    wire: Wire, served: Served, address: str, body: dict[str, Any]
) -> None:
    answer = await wire.ask(served, wire.post(json.dumps(body).encode(), path=address))
    path, _, sent = told(answer)
    assert path == "/v1" + address.removeprefix("/v1")
    assert json.loads(sent) == {**body, "model": "org/own"}


async def test_so_is_one_with_a_large_body(wire: Wire, served: Served) -> None:
    body = json.dumps({"model": "own", "messages": "x" * 300_000}).encode()
    answer = await wire.ask(served, wire.post(body, path="/v1/messages"))
    assert len(told(answer)[2]) > 300_000


@pytest.mark.one_in(2)
async def test_pages_of_other_sites_cannot_send_a_form(wire: Wire, served: Served) -> None:
    for header, status in (
        ("Sec-Fetch-Site: cross-site", 403),
        ("Origin: null", 403),
        ("Sec-Fetch-Site: same-origin", 200),
    ):
        body = MARK % (b"model", b"own") + b"--xy--\r\n"
        answer = await wire.ask(served, wire.post(body, header, path="/v1/audio/translations", kind=FORM))
        assert answer.status == status, header
