"""One request on its way from the proxy to a worker."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from draftd.telemetry.request_record import RequestRecord
from draftd.web.client import JSON, StreamReply
from draftd.web.request_body import Forward
from draftd.web.worker_http import WorkerConnection
from draftd.workers.usage import Lease


@dataclass(slots=True)
class Sent:
    """One request on its way: its profile, and what the worker is sent. `headers` are those of the client's answer,
    `own` are for our engine. `record` is what the journal tells of it.
    """

    name: str
    headers: dict[str, str]
    path: str
    payload: bytes
    kind: str = JSON
    own: Mapping[str, str] = field(default_factory=dict)
    record: RequestRecord | None = None


Take = Callable[[WorkerConnection, Lease], Awaitable[bytes]]  # the answer; returns what is left to send of it


@dataclass(slots=True, kw_only=True)
class Call(Sent):
    """One for an answer that is made of tokens: where they go, and when they came.

    `reply` is None for a client that wants its answer in one piece. Times are monotonic seconds.
    """

    forward: Forward
    reply: StreamReply | None = None
    began: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    last_token: float | None = None
