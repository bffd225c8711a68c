"""The answer to a request that was passed on: it goes to the client as it comes, whatever it is."""

from __future__ import annotations

import re

from draftd.web.client import JSON, ClientExchange
from draftd.web.worker_http import IN_THE_MIDDLE, BrokenOffError, WorkerConnection
from draftd.workers.usage import Lease

_KIND = re.compile(rb"\r\ncontent-type:[ \t]*([ -~]+?)[ \t]*\r\n", re.IGNORECASE)
_END_IS_TOLD = re.compile(rb"\r\n(?:content-length|transfer-encoding):", re.IGNORECASE)


class PassedAnswer:
    """Takes the answer for one client. What comes at once goes out in one piece, all else as a stream."""

    def __init__(self, exchange: ClientExchange) -> None:
        self._exchange = exchange
        self._status = 200
        self._kind = JSON

    async def take(self, connection: WorkerConnection, lease: Lease) -> bytes:
        """Pass on all but the last piece, and return that. Raises BrokenOffError."""
        head, _, _ = connection.head.partition(b"\r\n\r\n")
        found = _KIND.search(head + b"\r\n")
        self._status = connection.status
        self._kind = self._exchange.stream_type = found[1].decode() if found else "application/octet-stream"
        while (piece := await connection.read()) and not connection.complete:
            lease.progress()
            await self._exchange.write(piece)
        if not connection.complete and _END_IS_TOLD.search(head):
            raise BrokenOffError(IN_THE_MIDDLE)
        return piece

    async def finish(self, rest: bytes) -> None:
        """Send the last piece."""
        if self._exchange.begun:
            await self._exchange.finish(rest)
        else:
            await self._exchange.answer(self._status, rest, self._kind)
