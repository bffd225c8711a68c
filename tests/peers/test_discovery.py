"""Machines that are found by Bonjour, here on loopback: used if they are the user's own, and not trusted before."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
import structlog.testing
from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceInfo

from draftd.errors import ConfigError
from draftd.peer_tables import PeerTable
from draftd.peers import discovery
from draftd.peers.fleet import Fleet
from draftd.peers.load_report import Known
from draftd.peers.machines import Peer
from draftd.settings import load_settings
from tests.certificates import Made, self_signed
from tests.harness import LIMIT, Served, fake, free_ports, serving
from tests.peers.between import between

KEY = "a common key"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return self_signed(tmp_path_factory.mktemp("tls"), "DNS:mini.local", "IP:127.0.0.1")


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


async def until_told(told: Sequence[Mapping[str, Any]], count: int) -> set[str]:
    """Wait until the log has so many reasons why a machine is not used, and return them."""
    async with asyncio.timeout(LIMIT):
        while len(reasons := {line["reason"] for line in told if line.get("machine")}) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # a log tells nobody of a new line
    return reasons


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
    with structlog.testing.capture_logs() as told:
        async with (
            server,
            between(target, context) as way,
            finding(tmp_path / "front", made) as front,
            announced("stranger", way.port),
        ):
            reasons = await until_told(told, 1)
            assert front.daemon.fleet.peers == []  # he takes neither a place nor a name
            assert (await front.get("/api/status")).json["peers"] == []
    assert reasons.pop().startswith("its certificate is not trusted")
    assert not got


@pytest.mark.fault(181)
async def test_a_daemon_that_is_a_peer_already_or_this_one_is_no_peer_a_second_time(
    tmp_path: Path, made: Made
) -> None:
    for name in ("there", "front"):
        (tmp_path / name).mkdir()
    tls: dict[str, Any] = {"tls_cert": made.cert, "tls_key": made.key}
    async with serving(tmp_path / "there", {"a": fake()}, api_key=KEY, **tls) as there:
        port = there.daemon.settings.port
        named = {"url": f"https://127.0.0.1:{port}", "api_key": KEY, "ca_file": str(made.cert)}
        front = serving(
            tmp_path / "front",
            {},
            peers=[named],
            discovery_find=True,
            discovery_api_key=KEY,
            discovery_ca_file=made.cert,
            api_key=KEY,
            **tls,
        )
        with structlog.testing.capture_logs() as told:
            # Under an id that is not its own, as the announcement of a daemon is that has been started again.
            async with (
                front as served,
                announced("earlier", served.daemon.settings.port),
                announced("b", port),
            ):
                reasons = await until_told(told, 2)
                assert [peer.name for peer in served.daemon.fleet.peers] == [f"127.0.0.1:{port}"]
        assert reasons == {
            "it is this daemon itself",
            f"it is the same daemon as the peer 127.0.0.1:{port}",
        }


async def test_a_found_machine_makes_way_for_the_same_one_that_the_settings_name() -> None:
    fleet = Fleet([PeerTable(url="http://127.0.0.1:1")], lambda: None)
    known = Known(True, {}, "one", 1.0)
    found = fleet.add(PeerTable(url="http://localhost:1"), known)
    assert isinstance(found, Peer)
    assert fleet.known_already(known, found) is None  # the other has not answered yet
    fleet.peers[0].reported(known)
    assert fleet.known_already(known, fleet.peers[0]) is None
    again = fleet.known_already(known, found)
    assert again is not None
    assert again.reason == "it is the same daemon as the peer 127.0.0.1:1"
    fleet.peers[0].failed("gone")
    assert fleet.known_already(known, found) is None  # it is the only way there


class Announcements:
    """A finder of machines whose details are asked of nobody, and whose use is noted."""

    def __init__(self, tasks: asyncio.TaskGroup, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used: list[discovery._Found] = []
        self.answered = asyncio.Event()
        self._heard = discovery._Finder(
            cast(Any, SimpleNamespace(zeroconf=None)), tasks, Fleet((), lambda: None), {}, cast(Any, None)
        )
        monkeypatch.setattr(AsyncServiceInfo, "async_request", AsyncMock(return_value=True))
        monkeypatch.setattr(self._heard, "_table", lambda info: True)
        monkeypatch.setattr(self._heard, "_use", self._use)

    async def _use(self, table: object, announced: object, found: discovery._Found) -> None:
        self.used.append(found)
        await found.gone.wait()
        await self.answered.wait()

    async def hear(self, change: ServiceStateChange, name: str = "mini") -> None:
        self._heard.heard(cast(Any, None), discovery.KIND, f"{name}.{discovery.KIND}", change)
        for _ in range(5):
            await asyncio.sleep(0)  # turns of the loop


async def test_a_machine_that_is_back_before_its_last_answer_has_ended_is_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with asyncio.TaskGroup() as tasks:
        made = Announcements(tasks, monkeypatch)
        for change in (ServiceStateChange.Added, ServiceStateChange.Removed, ServiceStateChange.Added):
            await made.hear(change)
        assert len(made.used) == 1
        made.answered.set()
        await made.hear(ServiceStateChange.Added)
        assert len(made.used) == 2
        await made.hear(ServiceStateChange.Removed)


async def test_what_cannot_be_announced_ends_no_other_announcement(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asyncio.TaskGroup() as tasks:
        made = Announcements(tasks, monkeypatch)
        await made.hear(ServiceStateChange.Added)
        await made.hear(
            ServiceStateChange.Added, "a\x07b"
        )  # zeroconf itself hands this over, and refuses it then
        await made.hear(ServiceStateChange.Added, "studio")
        assert len(made.used) == 2
        made.answered.set()
        for name in ("mini", "studio"):
            await made.hear(ServiceStateChange.Removed, name)


@pytest.mark.fault(181)
async def test_of_too_many_that_prove_nothing_the_oldest_is_given_up_and_no_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discovery, "MAX_UNPROVEN", 2)
    async with asyncio.TaskGroup() as tasks:
        made = Announcements(tasks, monkeypatch)
        made.answered.set()
        await made.hear(ServiceStateChange.Added, "proven")
        made.used[0].peer = cast(Any, "a peer")
        names = ["stranger", "another", "one more"]
        for name in names:
            await made.hear(ServiceStateChange.Added, name)
        assert [found.gone.is_set() for found in made.used] == [False, True, False, False]
        for name in ("proven", *names):
            await made.hear(ServiceStateChange.Removed, name)


async def test_an_answer_of_a_found_machine_may_end_when_the_daemon_stops(tmp_path: Path, made: Made) -> None:
    for name in ("there", "front"):
        (tmp_path / name).mkdir()
    there = serving(tmp_path / "there", {"a": fake()}, api_key=KEY, tls_cert=made.cert, tls_key=made.key)
    async with (
        there as other,
        announced("other", other.daemon.settings.port),
        finding(tmp_path / "front", made) as front,
    ):
        await until(front, lambda served: "a" in served.daemon.fleet.models())
        waiting = asyncio.create_task(front.ask("a", "[[wait 0.5]]"))
        await other.until_queue("a")
        front.daemon.stop()
        assert (await waiting).status == 200


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("[discovery]\nfind = true\n", "2: discovery.find: whoever is in the network can say"),
        ('[discovery]\nfind = true\napi_key = "x"\n', "2: discovery.find: whoever is in the network can say"),
        (
            '[discovery]\napi_key = ""\n',
            "2: discovery.api_key: a key is a string of printable ASCII",
        ),
        ("[discovery]\napi_key = 65535\n", "2: discovery.api_key: "),
        (
            "[discovery]\nannounce = true\n",
            "2: discovery.announce: other machines can use it only over https",
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
