"""One request to a peer and its answer, in the form in which the proxy takes those of workers.

Theory of operation. A peer is another machine: a connection takes a while, may be encrypted, and may hang forever
when that machine falls asleep. So aiohttp does it, and silence has a limit: a draftd sends comments into its
streams, and TCP's own probes tell when a machine is gone. What matters most here is whether a request may be sent
again elsewhere, and it may in three cases only: nobody took the connection, the key was refused, or the answer's
status says that the request was not begun. Everything else that goes wrong ends the request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

import aiohttp

from draftd import clock
from draftd.errors import DraftdError, WorkerError
from draftd.peers.bodies import Body, UnreadableError
from draftd.peers.load_report import refusal_of
from draftd.peers.machines import Peer
from draftd.peers.watch import CONNECT_TIMEOUT, KEY_REFUSED, Sessions, why
from draftd.web.client import JSON
from draftd.web.worker_errors import refusal
from draftd.web.worker_http import BEFORE, ERROR_TIMEOUT, IN_THE_MIDDLE, MAX_ERROR, BrokenOffError

OTHERS_SILENCE = (
    600.0  # seconds; a server may be silent until its first token, as long as a prompt takes to read
)
SILENT_KEEPALIVES = 4  # a draftd is gone after this many comments that did not come
_BUSY = frozenset({429, 503})
_BEGUN = frozenset({"stopping", "cancelled", "worker_lost"})  # codes of a 503 that may come in mid-answer


class ElsewhereError(WorkerError):
    """The request was not begun there, and may be sent to another machine. `error` is what the client is told if
    there is no other.
    """

    def __init__(self, error: DraftdError) -> None:
        super().__init__(str(error))
        self.error = error


class PeerConnection:
    """An answer of a peer; `close` it whatever happens. `headers` have their names in lower case."""

    def __init__(self, name: str, response: aiohttp.ClientResponse) -> None:
        self._name = name
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = _first_of_each(response)

    @property
    def complete(self) -> bool:
        """Whether all of it has come."""
        return self._response.content.at_eof()

    async def read(self) -> bytes:
        """What has come since the last call, or comes next; b"" at the end. Raises BrokenOffError."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenOffError(IN_THE_MIDDLE, _broke_off(self._name, IN_THE_MIDDLE, error)) from error

    def close(self) -> None:
        """Break the connection off, if it is still open: so a peer learns that nobody waits any more."""
        self._response.close()


# Where a daemon sends comments while there is nothing else to send, so that silence means something.
WITH_COMMENTS = frozenset({"/v1/chat/completions", "/v1/completions"})


async def post(
    peer: Peer, sessions: Sessions, model: str, path: str, payload: Body, kind: str = JSON
) -> PeerConnection:
    """Send a request for a model; returns once the peer has answered with status 2xx. `peer` notes what this shows
    of it.

    Raises ElsewhereError if it was not begun, else BrokenOffError, UnreadableError, RequestError or WorkerError.
    """
    told = peer.known.own and path in WITH_COMMENTS
    silence = peer.known.keepalive * SILENT_KEEPALIVES if told else OTHERS_SILENCE
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=silence)
    try:
        response = await sessions.sending.post(
            path,
            data=payload if isinstance(payload, bytes) else payload.pieces(),
            headers={"Content-Type": kind, "Content-Length": str(len(payload))},
            timeout=timeout,
            allow_redirects=False,
        )
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        peer.failed(why(error))
        raise ElsewhereError(_gone(peer, why(error))) from error
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error.__cause__, UnreadableError):  # aiohttp makes a broken connection of it
            raise error.__cause__ from error
        peer.failed(why(error))
        raise BrokenOffError(BEFORE, _broke_off(peer.name, BEFORE, error)) from error
    peer.answered()
    if 200 <= response.status < 300:
        return PeerConnection(peer.name, response)
    try:
        raise await _refused(peer, response, model)
    finally:
        response.close()


async def _refused(peer: Peer, response: aiohttp.ClientResponse, model: str) -> DraftdError:
    """The error for an answer with another status than 2xx."""
    body = await _body_of_error(response)
    if response.status in KEY_REFUSED:
        reason = refusal_of(response.status, body)
        peer.failed(reason, lasting=True)
        return ElsewhereError(_gone(peer, reason))
    error = refusal(response.status, _first_of_each(response), body, time.time())
    if not_begun(error) or getattr(error, "code", None) == "model_not_found":
        peer.leave_out(model, getattr(error, "retry_after", None))
        return ElsewhereError(error)
    return error


def not_begun(error: DraftdError) -> bool:
    """Whether the error of a worker or a peer says that it did not begin the request."""
    return isinstance(error, WorkerError) and error.status in _BUSY and error.code not in _BEGUN


async def _body_of_error(response: aiohttp.ClientResponse) -> bytes:
    """As much of it as comes."""
    body = bytearray()
    with suppress(aiohttp.ClientError, OSError):
        async with clock.limit(ERROR_TIMEOUT):
            while len(body) < MAX_ERROR and (piece := await response.content.read(MAX_ERROR)):
                body += piece
    return bytes(body)


def _gone(peer: Peer, reason: str) -> WorkerError:
    return WorkerError(f"the peer {peer.name} {reason}", code="peer_unavailable", retry_after=1)


def _broke_off(name: str, when: str, error: Exception) -> str:
    silent = isinstance(error, TimeoutError)
    return f"the peer {name} {'fell silent' if silent else 'broke off'} {when}"


def _first_of_each(response: aiohttp.ClientResponse) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        headers.setdefault(name.lower(), value)
    return headers
