"""One request on its way from the proxy to a worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from draftd.peers.bodies import Body
from draftd.peers.prefixes import Away
from draftd.telemetry.request_record import RequestRecord
from draftd.web.client import JSON
from draftd.workers.usage import Lease


class Connection(Protocol):
    """An answer with status 2xx, of a worker or of a peer. `headers` have their names in lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def complete(self) -> bool:
        """Whether it has come to an end that was told."""

    async def read(self) -> bytes:
        """What has come since the last call, or comes next; b"" at the end. Raises BrokenOffError."""


class Call(msgspec.Struct, eq=False):
    """One request on its way: its profile, and what the worker is sent. `headers` are those of the client's answer,
    `own` are for our engine. `record` is its entry in the journal. `away` is what a peer would be sent.
    """

    name: str
    headers: dict[str, str]
    record: RequestRecord
    path: str
    payload: Body
    kind: str = JSON
    own: Mapping[str, str] = msgspec.field(default_factory=dict)
    away: Away | None = None


Take = Callable[[Connection, Lease], Awaitable[bytes]]  # the answer; returns what is left to send of it
