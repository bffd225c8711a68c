"""The answer to a request that was passed on: it goes to the client as it comes, whatever it is."""

from __future__ import annotations

from draftd.web.call import Connection
from draftd.web.client import JSON, ClientExchange
from draftd.web.passed_on import BYTES
from draftd.web.worker_http import IN_THE_MIDDLE, BrokenOffError
from draftd.workers.usage import Lease

END_IS_TOLD = frozenset({"content-length", "transfer-encoding"})


class PassedAnswer:
    """Takes the answer for one client. What comes at once goes out in one piece, all else as a stream."""

    def __init__(self, exchange: ClientExchange) -> None:
        self._exchange = exchange
        self._status = 200
        self._kind = JSON

    async def take(self, connection: Connection, lease: Lease) -> bytes:
        """Pass on all but the last piece, and return that. Raises BrokenOffError."""
        self._status = connection.status
        self._kind = self._exchange.stream_type = _kind(connection.headers.get("content-type", ""))
        while (piece := await connection.read()) and not connection.complete:
            lease.progress()
            await self._exchange.write(piece)
        if not connection.complete and not END_IS_TOLD.isdisjoint(connection.headers):
            raise BrokenOffError(IN_THE_MIDDLE)
        return piece

    async def finish(self, rest: bytes) -> None:
        """Send the last piece."""
        if self._exchange.begun:
            await self._exchange.finish(rest)
        else:
            await self._exchange.answer(self._status, rest, self._kind)


def _kind(told: str) -> str:
    """The content type for the client: the server's, unless that holds what a header cannot."""
    return told if told and told.isascii() and told.isprintable() else BYTES
