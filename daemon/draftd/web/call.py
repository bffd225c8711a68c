"""One request on its way from the proxy to a worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from draftd.telemetry.request_record import RequestRecord
from draftd.web.client import JSON
from draftd.web.worker_http import WorkerConnection
from draftd.workers.usage import Lease


@dataclass(slots=True)
class Call:
    """One request on its way: its profile, and what the worker is sent. `headers` are those of the client's answer,
    `own` are for our engine. `record` is its entry in the journal.
    """

    name: str
    headers: dict[str, str]
    path: str
    payload: bytes
    kind: str = JSON
    own: Mapping[str, str] = field(default_factory=dict)
    record: RequestRecord | None = None


Take = Callable[[WorkerConnection, Lease], Awaitable[bytes]]  # the answer; returns what is left to send of it
