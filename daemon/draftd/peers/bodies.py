"""What a request's body is on its way to a worker or to a peer. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from draftd.errors import WorkerError


class UnreadableError(WorkerError):
    """This machine cannot read a body that it has stored: nobody else is at fault."""


class Stored(Protocol):
    """A body that is not in memory."""

    def __len__(self) -> int: ...

    @property
    def place(self) -> slice | None:
        """Where the model's name stands in it, if it is a form that has one."""

    def name(self, place: slice) -> bytes:
        """What stands there; as much of it as a name may have. Raises UnreadableError."""

    def renamed(self, model: bytes) -> Stored:
        """The same with another name at the place."""

    def pieces(self) -> AsyncIterator[bytes]:
        """All of it, piece by piece. Raises UnreadableError."""

    def close(self) -> None:
        """Nobody needs it any more."""


Body = bytes | Stored
