"""Finds other draftds in the network by Bonjour (DNS-SD), and lets them find this one. Off unless it is asked for.

Theory of operation. Whoever is in the network can announce anything, so an announcement gives nothing but an
address. It is asked over https alone, and its certificate has to be one that the user has named, or be signed by
one: only then is it sent the key that found machines share. Until it has answered that, it takes no place and no
name among the peers, and when too many such announcements are followed, the oldest of them is given up. From there
on it is a peer like any other, until it takes its announcement back and what it was asked before is answered. A
daemon that is a peer already, or this one, is not made one a second time, whatever it is called.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from random import random

import psutil
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from zeroconf import Error, InterfaceChoice, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from draftd.errors import ConfigError
from draftd.peer_tables import PeerTable
from draftd.peers.condition import Condition, Failed, New, Out, step
from draftd.peers.fleet import Fleet
from draftd.peers.load_report import Known
from draftd.peers.machines import Peer
from draftd.peers.watch import Sessions, ask, question, sessions, until_due
from draftd.settings import Settings
from draftd.tls import verifying
from draftd.workers.process import contained

KIND = "_draftd._tcp.local."
ID = b"id"  # of what an announcement says beside the address: identifies one start of a daemon
INTERFACES: InterfaceChoice | list[str] = InterfaceChoice.All
WITHIN_MS = 3_000  # that the details of an announcement may take
RETRY = 30.0  # seconds
MAX_UNPROVEN = 256  # announcements that are followed at once and have not shown whose they are
LOOK_AGAIN = 1.0  # seconds between looks whether one that is gone has answered the last request

Trust = Callable[[str], PeerTable]
log = structlog.get_logger("peers")


def trust(settings: Settings) -> Trust:
    """What makes a peer of an address, with the key and the certificates that found machines have in common.

    Raises ConfigError for certificates that cannot be read.
    """
    key, file = settings.discovery_api_key, settings.discovery_ca_file
    if file is not None:
        verifying(file)
    return lambda url: PeerTable(url=url, api_key=key, ca_file=file)


async def announce(own_id: str, names: Sequence[str], host: str, port: int) -> None:
    """Say where this daemon is, until cancelled. `names` are those of its certificate; it listens on `host`."""
    machine = socket.gethostname().partition(".")[0]
    usable = (name for name in names if name.endswith(".local") and not name.startswith("*"))
    server = next(usable, f"{machine}.local")
    zeroconf = await _opened()
    try:
        info = AsyncServiceInfo(
            KIND,
            f"{machine}-{port}.{KIND}",
            port,
            server=f"{server}.",
            properties={ID: own_id.encode()},
            parsed_addresses=list(_addresses(host)),  # which there are with the network, and not before
        )
        await (await zeroconf.async_register_service(info, allow_name_change=True))
        log.info("other machines can find this one", name=server, port=port)
        await asyncio.Event().wait()
    finally:
        await zeroconf.async_close()  # takes the announcement back


def _addresses(host: str) -> Iterator[str]:
    """Those at which others reach what listens on `host`."""
    everywhere = host in {"0.0.0.0", "::"}
    for address in (each.address for found in psutil.net_if_addrs().values() for each in found):
        with suppress(ValueError):
            known = ipaddress.ip_address(address.partition("%")[0])
            if (everywhere and not known.is_loopback) or str(known) == host:
                yield str(known)


async def find(fleet: Fleet, reached: dict[str, Sessions], trusted: Trust) -> None:
    """Make peers of the machines that are announced, until cancelled. `reached` gets the connections to each."""
    zeroconf = await _opened()
    async with asyncio.TaskGroup() as tasks:
        finder = _Finder(zeroconf, tasks, fleet, reached, trusted)
        browser = AsyncServiceBrowser(zeroconf.zeroconf, KIND, handlers=[finder.heard])
        try:
            await asyncio.Event().wait()
        finally:
            await browser.async_cancel()
            await zeroconf.async_close()


async def _opened() -> AsyncZeroconf:
    """Once there is a network to speak in."""
    while True:
        try:
            return AsyncZeroconf(interfaces=INTERFACES)
        except OSError as error:
            log.warning("Bonjour does not work now", reason=str(error), tries_again_in=RETRY)
            await asyncio.sleep(RETRY)


class _Found:
    """One announcement: `peer` is what was made of it, None until it has shown that it is the user's own. `gone` is
    set when it is taken back, or given up.
    """

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.peer: Peer | None = None


class _Finder:
    """Has a task for each announcement."""

    def __init__(
        self,
        zeroconf: AsyncZeroconf,
        tasks: asyncio.TaskGroup,
        fleet: Fleet,
        reached: dict[str, Sessions],
        trusted: Trust,
    ) -> None:
        self._zeroconf = zeroconf
        self._tasks = tasks
        self._fleet = fleet
        self._reached = reached
        self._trusted = trusted
        self._found: dict[str, _Found] = {}  # the oldest first
        self._again: set[str] = set()  # announced again before the last answers of the first time have ended

    def heard(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        """Something was announced, or that was taken back. The names of the arguments are zeroconf's."""
        known = self._found.get(name)
        if state_change is ServiceStateChange.Removed:
            self._again.discard(name)
            if known:
                known.gone.set()
        elif known is None:
            self._start(name)
        elif known.gone.is_set():
            self._again.add(name)

    def _start(self, name: str) -> None:
        unproven = [one for one in self._found.values() if one.peer is None and not one.gone.is_set()]
        if len(unproven) >= MAX_UNPROVEN:
            unproven[0].gone.set()
        self._found[name] = _Found()
        self._tasks.create_task(self._follow(name, self._found[name]))

    async def _follow(self, name: str, found: _Found) -> None:
        with contained(""):  # whatever is announced, the others are not to lose by it
            try:
                info = AsyncServiceInfo(KIND, name)
                resolved = await info.async_request(self._zeroconf.zeroconf, WITHIN_MS)
                if resolved and (table := self._table(info)):
                    await self._use(table, _Announced(info.parsed_scoped_addresses()), found)
            except (ConfigError, Error) as error:
                log.warning("a machine that was found cannot be used", reason=str(error))
            finally:
                del self._found[name]
        if name in self._again:
            self._again.remove(name)
            self._start(name)

    def _table(self, info: AsyncServiceInfo) -> PeerTable | None:
        if info.properties.get(ID) == self._fleet.id.encode() or not info.server:
            return None  # this daemon itself, or nobody
        try:
            return self._trusted(f"https://{info.server.rstrip('.')}:{info.port}")
        except ValueError:  # that is no address
            return None

    async def _use(self, table: PeerTable, announced: _Announced, found: _Found) -> None:
        """Have it as a peer until it is gone, and has answered what it was asked before."""
        async with sessions([table], announced) as made:
            using = asyncio.create_task(self._try(table, made[table.name], found))
            gone = asyncio.create_task(found.gone.wait())
            try:
                done, _ = await asyncio.wait((using, gone), return_when=asyncio.FIRST_COMPLETED)
                if using in done:
                    using.result()  # it has failed
                if found.peer:
                    await _until_idle(found.peer)
            finally:
                for task in (using, gone):
                    task.cancel()
                await asyncio.wait((using, gone))

    async def _try(self, table: PeerTable, reached: Sessions, found: _Found) -> None:
        """Make it a peer as often as it answers and is no other one, until cancelled."""
        while True:
            peer = await self._proven(table, reached)
            log.info("a machine is found", peer=peer.name)
            self._reached[peer.name], found.peer = reached, peer
            try:
                while self._fleet.known_already(peer.known, peer) is None:
                    await until_due(peer)
                    await ask(peer, reached.asking, self._fleet)
                await _until_idle(peer)  # it is another peer as well, which has answered only now
            finally:
                found.peer = None
                self._fleet.remove(peer)
                del self._reached[peer.name]
                log.info("a machine that was found is a peer no more", peer=peer.name)

    async def _proven(self, table: PeerTable, reached: Sessions) -> Peer:
        """The peer that it is, once it has answered as one of the user's own. Nothing is known of it before."""
        state: Condition = New()
        while True:
            known = await question(reached.asking)
            if isinstance(known, Known):
                made = self._fleet.add(table, known) if known.own else Failed("it is no draftd", lasting=True)
                if isinstance(made, Peer):
                    return made
            else:
                made = known
            if getattr(state, "reason", None) != made.reason:
                log.warning("a machine that was found is not used", machine=table.name, reason=made.reason)
            now = time.monotonic()
            state = step(state, made, now, random())
            assert isinstance(state, Out), "it has failed"
            await asyncio.sleep(state.due - now)


class _Announced(AbstractResolver):
    """Knows a name by the addresses of its announcement: a system need not know names in `.local` (Linux)."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Those addresses."""
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def _until_idle(peer: Peer) -> None:
    peer.leaves = True
    while peer.open:  # noqa: ASYNC110 - nobody tells of the end of a request
        await asyncio.sleep(LOOK_AGAIN)
