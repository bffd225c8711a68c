"""A daemon that serves https: over both transports, to its own commands, to peers, and to who speaks plain HTTP."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from draftd.errors import DraftdError
from draftd.instance import find_daemon
from draftd.ops.generation import OpenAIServer
from draftd.ops.http import DaemonClient, HttpClient, NoAnswerError
from tests.certificates import Made, self_signed, signed
from tests.harness import LIMIT, Served, chat, fake, serving
from tests.peers.conftest import until
from tests.web.raw_http import Connection, Wire

NAMES = ("DNS:localhost", "DNS:mini.local", "IP:127.0.0.1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return self_signed(tmp_path_factory.mktemp("tls"), *NAMES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secure(made: Made, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("secure")
    async with serving(
        folder, {"a": fake()}, tls_cert=made.cert, tls_key=made.key, connection_timeout=1.0
    ) as served:
        yield served


def trusting(made: Made) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(made.signer))


async def connect(served: Served, tls: ssl.SSLContext | None, name: str = "mini.local") -> Connection:
    port = served.daemon.settings.port
    return Connection(
        *await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname=name if tls is not None else None
        )
    )


@pytest.mark.asyncio(loop_scope="module")
async def test_each_transport_answers_and_one_connection_may_go_from_one_to_the_other(
    secure: Served, made: Made
) -> None:
    assert secure.url == f"https://127.0.0.1:{secure.daemon.settings.port}"
    client = await connect(secure, trusting(made))
    for wire in (Wire("fast"), Wire("fast"), Wire("aiohttp"), Wire("aiohttp")):
        client.send(wire.chat(stream=True))
        answer = await client.answer()
        assert (answer.status, answer.whole) == (200, True)
        assert answer.body.endswith(b"data: [DONE]\n\n")
    # A name that the certificate is for needs no place in allowed_hosts.
    client.send(
        b"GET /healthz HTTP/1.1\r\nHost: mini.local\r\n\r\nGET /healthz HTTP/1.1\r\nHost: evil\r\n\r\n"
    )
    assert [(await client.answer()).status for _ in range(2)] == [200, 403]
    client.writer.transport.abort()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_client_that_leaves_is_noticed(secure: Served, made: Made, wire: Wire) -> None:
    client = await connect(secure, trusting(made))
    client.send(wire.chat("[[slow]]", stream=True))
    await secure.until_queue("a")
    client.writer.transport.abort()
    await secure.until_queue("a", active=0)


@pytest.mark.fault(197)
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("body", [b"", b"x" * 300_000])
async def test_who_speaks_plain_http_is_told_so(secure: Served, body: bytes) -> None:
    client = await connect(secure, None)
    client.send(Wire("fast").post(body))
    answer = await client.answer()
    assert (answer.status, answer.error["code"]) == (400, "https_only")
    assert "https://" in answer.error["message"]
    client.writer.transport.abort()


@pytest.mark.fault(197)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_not_tls_is_closed_and_others_are_served_meanwhile(
    secure: Served, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    try:
        silent = await connect(secure, None)
        halfway = await connect(secure, None)
        halfway.send(b"\x16\x03\x01\x02\x00\x01")  # a handshake that does not go on
        garbage = await connect(secure, None)
        garbage.send(b"\x16" + bytes(100))
        gone = await connect(secure, None)
        gone.writer.transport.abort()
        untrusting = ssl.create_default_context()
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(secure, untrusting)
        client = await connect(secure, trusting(made))
        client.send(Wire("fast").chat())
        assert (await client.answer()).status == 200
        client.writer.transport.abort()
        for stranger in (silent, halfway, garbage):
            assert b"HTTP" not in await stranger.rest(limit=LIMIT)
            stranger.writer.transport.abort()
        assert failures == []
    finally:
        loop.set_exception_handler(None)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_daemons_own_commands_trust_its_certificate_and_no_other(
    secure: Served, made: Made, tmp_path: Path
) -> None:
    running = find_daemon(secure.daemon.settings.state_dir)
    assert (running.url, running.address, running.to_trust) == (secure.url, secure.url, str(made.cert))

    def asked() -> str:
        client = DaemonClient(secure.daemon.settings.state_dir)
        assert client.status()["workers"][0]["name"] == "a"
        return OpenAIServer(running.url, "", running.certificate).generate(chat(model="a")).text

    assert await asyncio.to_thread(asked)
    stranger = HttpClient(running.url, "", self_signed(tmp_path, *NAMES).cert.read_text())
    with pytest.raises(NoAnswerError, match="certificate"):
        await asyncio.to_thread(stranger.json, "/healthz")


async def test_a_certificate_for_another_name_is_told_to_clients_and_no_matter_to_commands(
    tmp_path: Path,
) -> None:
    by_authority = signed(tmp_path, "DNS:mini.local")
    asleep = {"a": f"autostart = false\n{fake()}"}
    async with serving(tmp_path, asleep, tls_cert=by_authority.cert, tls_key=by_authority.key) as served:
        running = find_daemon(served.daemon.settings.state_dir)
        port = served.daemon.settings.port
        assert (running.url, running.address) == (f"https://127.0.0.1:{port}", f"https://mini.local:{port}")
        assert running.to_trust == ""
        status = await asyncio.to_thread(DaemonClient(served.daemon.settings.state_dir).status)
        assert [row["name"] for row in status["workers"]] == ["a"]
        client = await connect(served, trusting(by_authority))
        client.send(b"GET /healthz HTTP/1.1\r\nHost: mini.local\r\n\r\n")
        assert json.loads((await client.answer()).body) == {"status": "ok"}
        client.writer.transport.abort()


@pytest.mark.fault(183)
async def test_a_renewed_certificate_is_served_as_soon_as_its_files_fit_and_no_connection_is_cut(
    tmp_path: Path,
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first, second = (
        self_signed(tmp_path / "first", "DNS:mini.local"),
        self_signed(tmp_path / "second", *NAMES),
    )
    used = Made(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "cert.pem")

    def replace(path: Path, by: Path) -> None:
        (new := path.with_suffix(".new")).write_bytes(by.read_bytes())
        new.replace(path)

    replace(used.cert, first.cert)
    replace(used.key, first.key)
    used.key.chmod(0o644)
    asleep = {"a": f"autostart = false\n{fake()}"}
    with capture_logs() as told:
        async with serving(tmp_path, asleep, tls_cert=used.cert, tls_key=used.key) as served:
            assert any("every user" in line.get("reason", "") for line in told)
            tls = served.daemon.tls
            assert tls is not None
            open_before = await connect(served, trusting(first))
            replace(used.cert, second.cert)  # its key comes a moment later
            async with asyncio.timeout(LIMIT):
                while tls.problem is None:  # noqa: ASYNC110 - by its own look at the files
                    await asyncio.sleep(0.01)
            assert "is not that of the certificate" in tls.problem
            state_dir = served.daemon.settings.state_dir
            status = await asyncio.to_thread(DaemonClient(state_dir).status)
            assert status["reload_problem"] == tls.problem
            refused = await asyncio.to_thread(_reloaded, state_dir)
            assert "the certificate from before stays in use" in refused
            meanwhile = await connect(served, trusting(first))
            replace(used.key, second.key)
            # The daemon may have looked by itself a moment ago.
            assert await asyncio.to_thread(_reloaded, state_dir) in {"['the certificate']", "[]"}
            assert tls.problem is None
            client = await connect(served, trusting(second), "localhost")
            for connection, name in (
                (open_before, b"mini.local"),
                (meanwhile, b"mini.local"),
                (client, b"localhost"),
            ):
                connection.send(b"GET /healthz HTTP/1.1\r\nHost: " + name + b"\r\n\r\n")
                assert (await connection.answer()).status == 200
                connection.writer.transport.abort()
            assert find_daemon(state_dir).certificate == second.cert.read_text()
            assert await asyncio.to_thread(_reloaded, state_dir) == "[]"


def _reloaded(state_dir: Path) -> str:
    """What a reload says that it has changed, or why it is refused."""
    try:
        return str(DaemonClient(state_dir).reload())
    except DraftdError as error:
        return str(error)


async def test_a_peer_may_be_a_draftd_that_serves_https(tmp_path: Path, made: Made) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "front").mkdir()
    async with serving(
        tmp_path / "there", {"a": fake()}, api_key="word", tls_cert=made.cert, tls_key=made.key
    ) as there:
        port = there.daemon.settings.port
        peer = {"url": f"https://127.0.0.1:{port}", "ca_file": str(made.cert), "api_key": "word"}
        async with serving(tmp_path / "front", {}, peers=[peer]) as front:
            async with asyncio.timeout(LIMIT):
                await until(front, port, "well")
            answer = await front.ask("a", stream=True)
            assert (answer.status, answer.events[-1]) == (200, "[DONE]")
            assert answer.headers["x-draftd-worker"] == f"127.0.0.1:{port}"
