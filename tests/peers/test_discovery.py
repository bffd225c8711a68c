"""Machines that are found by Bonjour, here on loopback: used if they are the user's own, and not trusted before."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from draftd.errors import ConfigError
from draftd.peers import discovery
from draftd.peers.condition import Out
from draftd.settings import load_settings
from tests.certificates import Made, self_signed
from tests.harness import LIMIT, Served, fake, free_ports, serving
from tests.peers.between import between

KEY = "a common key"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return self_signed(tmp_path_factory.mktemp("tls"), "DNS:mini.local")


@pytest.fixture(autouse=True)
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "INTERFACES", ["127.0.0.1"])
    monkeypatch.setattr(discovery, "LOOK_AGAIN", 0.02)


@asynccontextmanager
async def announced(own_id: str, port: int) -> AsyncIterator[None]:
    task = asyncio.create_task(discovery.announce(own_id, ("mini.local",), "127.0.0.1", port))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def finding(folder: Path, made: Made) -> AsyncIterator[Served]:
    async with serving(
        folder, {}, discovery_api_key=KEY, discovery_ca_file=made.cert, discovery_find=True
    ) as served:
        yield served


async def until(served: Served, met: Callable[[Served], bool]) -> None:
    async with asyncio.timeout(LIMIT * 2):
        while not met(served):
            await served.daemon.fleet._changed.wait()


@pytest.mark.fault(199)
async def test_a_machine_is_used_from_its_announcement_until_it_takes_that_back(
    tmp_path: Path, made: Made
) -> None:
    for name in ("there", "front"):
        (tmp_path / name).mkdir()
    there = serving(tmp_path / "there", {"a": fake()}, api_key=KEY, tls_cert=made.cert, tls_key=made.key)
    async with there as other, finding(tmp_path / "front", made) as front:
        port = other.daemon.settings.port
        async with announced("other", port), announced(front.daemon.fleet.id, free_ports()):
            await until(front, lambda served: "a" in served.daemon.fleet.models())
            [peer] = (await front.get("/api/status")).json["peers"]
            assert (peer["name"], peer["found"]) == (f"mini.local:{port}", True)
            assert (await front.ask("a", stream=True)).events[-1] == "[DONE]"
            waiting = asyncio.create_task(front.ask("a", "[[wait 0.5]]"))
            await other.until_queue("a")
        assert (await waiting).status == 200
        await until(front, lambda served: not served.daemon.fleet.peers)
        assert (await front.ask("a")).status == 404


@pytest.mark.fault(199)
async def test_a_stranger_who_announces_himself_gets_neither_key_nor_request(
    tmp_path: Path, made: Made
) -> None:
    for name in ("strange", "front"):
        (tmp_path / name).mkdir()
    other = self_signed(tmp_path / "strange", "DNS:mini.local")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(other.cert, other.key)
    got = bytearray()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend(await reader.read())
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[1]
    async with (
        server,
        between(target, context) as way,
        finding(tmp_path / "front", made) as front,
        announced("stranger", way.port),
    ):
        await until(
            front, lambda served: any(isinstance(p.condition, Out) for p in served.daemon.fleet.peers)
        )
        [peer] = front.daemon.fleet.peers
        assert isinstance(peer.condition, Out)
        assert peer.condition.reason.startswith("its certificate is not trusted")
    assert not got


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("[discovery]\nfind = true\n", "2: discovery_find: whoever is in the network can say"),
        ('[discovery]\nfind = true\napi_key = "x"\n', "2: discovery_find: whoever is in the network can say"),
        (
            '[discovery]\napi_key = ""\n',
            "2: discovery_api_key: a key is a string of printable ASCII",
        ),
        ("[discovery]\napi_key = 65535\n", "2: discovery_api_key: "),
        (
            "[discovery]\nannounce = true\n",
            "2: discovery_announce: other machines can use it only over https",
        ),
        (
            'host = "0.0.0.0"\ndiscovery_announce = true\n',
            "2: discovery_announce: other machines can use it only",
        ),
    ],
)
def test_what_nobody_could_trust_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, words: str
) -> None:
    file = tmp_path / "draftd.toml"
    file.write_text(settings)
    monkeypatch.setenv("DRAFTD_CONFIG", str(file))
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert f"{file}:{words}" in str(caught.value)
    assert "65535" not in str(caught.value)  # a key is never repeated


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("draftd.settings.find_spec", lambda name: None)
    monkeypatch.setenv("DRAFTD_DISCOVERY_API_KEY", "x")
    monkeypatch.setenv("DRAFTD_DISCOVERY_CA_FILE", "/x.pem")
    monkeypatch.setenv("DRAFTD_DISCOVERY_FIND", "true")
    with pytest.raises(ConfigError, match="install draftd with the extra 'discovery'"):
        load_settings()
