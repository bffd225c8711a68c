"""What is known of one request: figures only, no text of a prompt or an answer. Pure."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec

from draftd.telemetry.lines import escape

MAX_CLIENT = 40  # characters of a client's name


class RequestRecord(msgspec.Struct, eq=False):
    """One request. `began` is in epoch seconds, all other times are seconds since then; what is not known is None.

    `worker` or `peer` is who answers. `phase` is "waiting" (for its turn, or for the worker), "answering" or
    "ended". `agent` is what the client calls itself. `proposed` and `accepted` count draft tokens; the engine
    reports them at the end of the answer. `captured`: the journal has, or had, its contents.
    """

    id: str
    dialect: str
    agent: str = ""
    began: float = msgspec.field(default_factory=time.time)
    profile: str | None = None
    worker: str | None = None
    peer: str | None = None
    phase: Literal["waiting", "answering", "ended"] = "waiting"
    streamed: bool | None = None
    waited: float | None = None
    first_token: float | None = None
    seconds: float | None = None
    status: int | None = None
    error: str = ""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    proposed: int | None = None
    accepted: int | None = None
    cancelled: bool = False
    captured: bool = False
    version: int = 0
    task: Any = None  # the asyncio task that answers it

    @property
    def client(self) -> str:
        """The client's name, in short."""
        return client_name(self.agent)

    @property
    def acceptance(self) -> float | None:
        """Accepted ÷ proposed; None if nothing was drafted, or nobody said."""
        return self.accepted / self.proposed if self.proposed and self.accepted is not None else None


_INNER = {"task", "version", "worker", "agent"}
SHOWN = ("client", *(name for name in RequestRecord.__struct_fields__ if name not in _INNER))


def as_json(record: RequestRecord) -> dict[str, Any]:
    """The record as the API shows it."""
    return {name: getattr(record, name) for name in SHOWN} | {"acceptance": record.acceptance}


def client_name(agent: str) -> str:
    """What a client calls itself, in short: its first word, which is the program and its version.

    Browsers all begin with Mozilla; the last word tells them apart.
    """
    words = agent.split()
    if not words:
        return ""
    word = words[-1] if words[0].startswith("Mozilla/") else words[0]
    return escape(word[:MAX_CLIENT])
