"""What requests begin with, as a request that has it read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Beginning:
    """The body of the request, which is a chat, and its headers for the engine. `name` is for the log."""

    name: str
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
