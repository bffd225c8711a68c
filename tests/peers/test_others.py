"""Peers that are not draftd, or are reached by https."""

from __future__ import annotations

import asyncio
import io
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web

from draftd.errors import ConfigError
from draftd.peers.condition import Out
from tests.harness import LIMIT, Served, fake, free_ports, serving
from tests.peers.between import between

pytestmark = pytest.mark.asyncio(loop_scope="module")
NOTHING = {"here": fake(top="autostart = false")}


async def until_asked(served: Served) -> None:
    """Wait until each peer has answered, or is left out."""
    async with asyncio.timeout(LIMIT):
        for peer in served.daemon.fleet.peers:
            while peer.condition.label == "new":
                peer.news.clear()
                await peer.news.wait()


@asynccontextmanager
async def other_server(asked: list[dict[str, Any]], wrong: web.Response | None = None) -> AsyncIterator[str]:
    """A server that speaks OpenAI's protocol and has one model; `asked` are the bodies that it gets. It answers a
    chat with what is `wrong`, if there is something.
    """

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "org/Model-4bit"}]})

    async def chat(request: web.Request) -> web.Response:
        asked.append(await request.json())
        if wrong is not None:
            return wrong
        text = (
            'data: {"choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop"}], "usage": '
            '{"prompt_tokens": 9, "completion_tokens": 1}}\n\ndata: [DONE]\n\n'
        )
        return web.Response(text=text, content_type="text/event-stream")

    async def embeddings(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({"data": [[0.5]]})

    async def heard(request: web.Request) -> web.Response:
        form = await request.post()
        sound = form["file"]
        assert isinstance(sound, web.FileField)
        return web.json_response({"length": request.content_length, "sound": len(sound.file.read())})

    app = web.Application(client_max_size=2**22)
    app.add_routes(
        [
            web.get("/v1/models", models),
            web.post("/v1/chat/completions", chat),
            web.post("/v1/embeddings", embeddings),
            web.post("/v1/audio/transcriptions", heard),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_ports()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def test_any_server_of_openais_protocol_can_be_a_peer(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []
    async with other_server(asked) as url, serving(tmp_path, NOTHING, peers=[{"url": url}]) as served:
        await until_asked(served)
        answer = await served.ask("org/Model-4bit", seed=7, special=True, num_draft_tokens="auto")
        assert answer.json["choices"][0]["message"]["content"] == "hello"
        assert (asked[-1]["seed"], asked[-1]["special"], asked[-1]["model"]) == (7, True, "org/Model-4bit")
        assert "num_draft_tokens" not in asked[-1]
        count = {"model": "org/Model-4bit", "messages": [{"role": "user", "content": "hi"}]}
        counted = await served.post("/v1/messages/count_tokens", count)
        assert (counted.json, asked[-1]["max_tokens"]) == ({"input_tokens": 9}, 1)
        refused = await served.ask("org/Model-4bit", drafters=["lookup"])
        assert (refused.status, refused.json["error"]["param"]) == (400, "drafters")
        embedded = await served.post("/v1/embeddings", {"model": "org/Model-4bit", "input": "x"})
        assert (embedded.status, embedded.json) == (200, {"data": [[0.5]]})
        assert asked[-1] == {"model": "org/Model-4bit", "input": "x"}
        form = aiohttp.FormData({"model": "org/Model-4bit"})
        form.add_field("file", io.BytesIO(bytes(2**21)), filename="long.wav")
        heard = await served.request("POST", "/v1/audio/transcriptions", data=form)
        assert (heard.status, heard.json["sound"]) == (200, 2**21)
        assert heard.json["length"] > 2**21
        assert (await served.get("/api/status")).json["peers"][0]["is_draftd"] is False


@pytest.mark.fault(185)
@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("text/html", "<html>", "what the peer {} sent holds no answer"),
        (
            "text/event-stream",
            "data: {{{\n\n",
            "the answer of the peer {} was broken: an event that is not JSON",
        ),
        (
            "application/json",
            '{"choices": []}',
            "the answer of the peer {} was broken: JSON that is not an answer",
        ),
    ],
)
async def test_an_answer_that_is_none_is_told_with_the_peers_name(
    tmp_path: Path, kind: str, body: str, words: str
) -> None:
    async with (
        other_server([], web.Response(text=body, content_type=kind)) as url,
        serving(tmp_path, NOTHING, peers=[{"url": url}]) as served,
    ):
        await until_asked(served)
        answer = await served.ask("org/Model-4bit")
        assert answer.status == 502
        assert answer.json["error"]["message"].startswith(words.format(url.partition("//")[2]))


@pytest.mark.fault(185)
@pytest.mark.parametrize(
    "answer",
    [
        b"\x1b[2J SSH-2.0\r\n\r\n",
        b"HTTP/1.1 200 \x1b[31mred\nx\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 50_000 + b"\r\n",
    ],
    ids=["other", "colours", "long", "many"],
)
async def test_what_answers_with_no_http_is_told_so_in_our_own_words(tmp_path: Path, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with suppress(OSError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, serving(tmp_path, NOTHING, peers=[{"url": url}]) as served:
        await until_asked(served)
        [told] = (await served.get("/api/status")).json["peers"]
        assert (told["state"], told["reason"]) == ("out", "answers with what is no HTTP")


@pytest.mark.fault(182)
async def test_a_disk_of_ours_that_fails_is_not_the_peers_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Mock(side_effect=OSError(5, "Input/output error"))
    async with other_server([]) as url, serving(tmp_path, NOTHING, peers=[{"url": url}]) as served:
        await until_asked(served)
        path = "/v1/audio/transcriptions?model=org/Model-4bit"
        sound: dict[str, Any] = {"data": io.BytesIO(bytes(2**21)), "headers": {"Content-Type": "audio/wav"}}
        with monkeypatch.context() as failing:
            failing.setattr("draftd.web.uploads.os.pread", broken)
            answer = await served.request("POST", path, **sound)
        assert (answer.status, answer.json["error"]["code"]) == (507, "no_space")
        [peer] = served.daemon.fleet.peers
        assert (peer.condition.label, peer.last_failure, peer.outcomes["failed"]) == ("well", None, 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that nobody trusts by default, and a server's context with it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    folder = tmp_path_factory.mktemp("tls")
    key, pem = folder / "key.pem", folder / "cert.pem"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command = ["openssl", *made.split(), "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(pem)], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key)
    return pem, context


async def test_an_https_peer_is_checked_by_the_certificates_that_are_named(
    tmp_path: Path, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    pem, context = certificate
    async with other_server([]) as url, between(int(url.rpartition(":")[2]), context) as way:
        trusting = {"url": way.url, "ca_file": str(pem)}
        async with serving(tmp_path, NOTHING, peers=[trusting]) as served:
            await until_asked(served)
            assert (await served.ask("org/Model-4bit", stream=True)).content == "hello"
        async with serving(tmp_path, NOTHING, peers=[{"url": way.url}]) as served:
            await until_asked(served)
            condition = served.daemon.fleet.peers[0].condition
            assert isinstance(condition, Out)
            assert condition.reason.startswith("its certificate is not trusted")
            assert (await served.ask("org/Model-4bit")).status == 404


async def test_certificates_that_cannot_be_read_are_refused_at_the_start(tmp_path: Path) -> None:
    (broken := tmp_path / "ca.pem").write_text("nothing of the kind")
    for file in (broken, tmp_path / "missing.pem"):
        with pytest.raises(BaseExceptionGroup) as caught:
            async with serving(tmp_path, NOTHING, peers=[{"url": "https://localhost", "ca_file": str(file)}]):
                pass
        (error,) = caught.value.exceptions
        assert isinstance(error, ConfigError)
        assert str(error).startswith(f"the certificates in {file} cannot be read: ")
