"""Asks peers how they are: which models they have, and how busy each is.

Theory of operation. One task for each peer asks it every second while it is used, less often otherwise, and when it
is due after a failure. A draftd is asked for its load; another server, which has no such address, for its models. A
peer that fails a request is left out by the relay, which wakes the task here to wait for the new time.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver

from draftd import __version__, clock
from draftd.peer_tables import PeerTable
from draftd.peers import HOPS_HEADER, LOAD_PATH
from draftd.peers.condition import Failed, Out
from draftd.peers.fleet import Fleet
from draftd.peers.load_report import Known, WrongReportError, of_draftd, of_others, refusal_of
from draftd.peers.machines import Peer
from draftd.tls import verifying

log = structlog.get_logger("peers")

OFTEN, SELDOM = 1.0, 5.0  # seconds between questions to a peer that is used, and to others
USED_WITHIN = 60.0  # seconds
MAX_SECONDS = 3.0  # that an answer may take
MAX_REPORT = 2 * 2**20  # bytes
CONNECT_TIMEOUT = 3.0  # seconds
KEY_REFUSED = frozenset({401, 403, 407})
NOT_THERE = frozenset({404, 405})


class Sessions:
    """The connections to one peer. `asking` keeps its connection; `sending` opens a new one for each request: one
    that was kept open may have ended, and then nobody could tell whether the request was begun.
    """

    def __init__(self, asking: aiohttp.ClientSession, sending: aiohttp.ClientSession) -> None:
        self.asking = asking
        self.sending = sending


@asynccontextmanager
async def sessions(
    peers: Sequence[PeerTable], resolver: AbstractResolver | None = None
) -> AsyncIterator[dict[str, Sessions]]:
    """The connections to each peer, by its name; `resolver` knows their addresses, else the system does.

    Raises ConfigError for certificates that cannot be read.
    """
    async with AsyncExitStack() as stack:
        made: dict[str, Sessions] = {}
        for peer in peers:
            trusted = verifying(peer.ca_file) if peer.ca_file else True
            asking, sending = (_session(peer, trusted, resolver, keep=keep) for keep in (True, False))
            made[peer.name] = Sessions(
                await stack.enter_async_context(asking), await stack.enter_async_context(sending)
            )
        yield made


def _session(
    peer: PeerTable, trusted: ssl.SSLContext | bool, resolver: AbstractResolver | None, *, keep: bool
) -> aiohttp.ClientSession:
    headers = {HOPS_HEADER: "1", "User-Agent": f"draftd/{__version__}", "Accept-Encoding": "identity"}
    if peer.api_key is not None:
        headers["Authorization"] = f"Bearer {peer.api_key.get_secret_value()}"
    connector = aiohttp.TCPConnector(
        limit=0, force_close=not keep, ssl=trusted, socket_factory=_probed_socket, resolver=resolver
    )
    return aiohttp.ClientSession(
        peer.url,
        connector=connector,
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


def _probed_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """A socket on which the system probes whether the other machine is still there, as TCP by itself never does."""
    family, kind, protocol, _, _ = info
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # The second is a Mac's name for the first.
    idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)
    for option, value in ((idle, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
        if option is not None:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


async def run(fleet: Fleet, made: dict[str, Sessions]) -> None:
    """Ask every peer of the fleet again and again, until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for peer in fleet.peers:
            if not peer.table.is_encrypted and not peer.table.is_here:
                log.warning(
                    "anybody on the way can read what a peer is sent, including its key", peer=peer.name
                )
            tasks.create_task(_watch(peer, made[peer.name].asking, fleet))


async def _watch(peer: Peer, session: aiohttp.ClientSession, fleet: Fleet) -> None:
    """Ask one peer again and again, until cancelled."""
    while True:
        await ask(peer, session, fleet)
        await until_due(peer)


async def until_due(peer: Peer) -> None:
    """Return when it is to be asked again."""
    while (left := _due(peer)) > 0:
        peer.news.clear()
        with suppress(TimeoutError):
            async with clock.limit(left):
                await peer.news.wait()


def _due(peer: Peer) -> float:
    """The seconds until it is asked again."""
    now = time.monotonic()
    if isinstance(peer.condition, Out):
        return peer.condition.due - now
    used = now - peer.used < USED_WITHIN
    return peer.asked + (OFTEN if used and peer.known.own else SELDOM) - now


async def ask(peer: Peer, session: aiohttp.ClientSession, fleet: Fleet) -> None:
    """One question, and what follows from its answer."""
    peer.asked = time.monotonic()
    found = await question(session)
    if isinstance(found, Known):
        found = fleet.known_already(found, peer) or found
    if isinstance(found, Failed):
        peer.failed(found.reason, lasting=found.lasting)
    else:
        peer.reported(found)


async def question(session: aiohttp.ClientSession) -> Known | Failed:
    """What a machine says of itself, or why it says nothing that can be used."""
    try:
        async with clock.limit(MAX_SECONDS):
            return await _known(session)
    except TimeoutError:
        return Failed(f"did not answer within {MAX_SECONDS:g} s")
    except _RefusedError as error:
        return Failed(str(error), lasting=True)
    except (WrongReportError, _StatusError) as error:
        return Failed(str(error))
    except (aiohttp.ClientError, OSError) as error:
        return Failed(why(error))


class _StatusError(Exception):
    """It answered with another status than 200."""


class _RefusedError(_StatusError):
    """It does not take our key."""


async def _known(session: aiohttp.ClientSession) -> Known:
    status, body = await _get(session, LOAD_PATH)
    if status == 200:
        return of_draftd(body)
    if status in NOT_THERE:
        status, body = await _get(session, "/v1/models")
        if status == 200:
            return of_others(body)
    if status in KEY_REFUSED:
        raise _RefusedError(refusal_of(status, body))
    raise _StatusError(f"answers with status {status}")


async def _get(session: aiohttp.ClientSession, path: str) -> tuple[int, bytes]:
    async with session.get(path, allow_redirects=False) as response:
        body = await response.content.read(MAX_REPORT)
        while len(body) < MAX_REPORT and (piece := await response.content.read(MAX_REPORT - len(body))):
            body += piece
        return response.status, body


_REASONS: Mapping[type[Exception], str] = {  # the first that fits
    aiohttp.ClientConnectorDNSError: "its name is not known here",
    aiohttp.ClientConnectorSSLError: "does not speak TLS: is its address http, not https?",
    aiohttp.ConnectionTimeoutError: f"took no connection within {CONNECT_TIMEOUT:g} s",
    aiohttp.SocketTimeoutError: "fell silent",
    TimeoutError: f"took no connection within {CONNECT_TIMEOUT:g} s",
    aiohttp.ServerDisconnectedError: "broke off",
    aiohttp.ClientConnectionResetError: "broke off",
    aiohttp.ClientResponseError: "answers with what is no HTTP",  # aiohttp's words are those of the peer
}


def why(error: Exception) -> str:
    """Why there is no connection, in a few words and without an address."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
        return os.strerror(error.os_error.errno).lower()
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
