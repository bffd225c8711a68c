"""What a worker finds in its inbox: the machine's events, and four messages that need a look before that."""

from __future__ import annotations

from dataclasses import dataclass

from draftd.profiles import Profile
from draftd.workers.states import Event


@dataclass(frozen=True, slots=True)
class FromChild:
    """Word of a child, by its number; that of an earlier child is void."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class Granted:
    """A load slot, for a ticket; one for an earlier ticket is void."""

    ticket: object


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """Serve this profile from now on; with `restart` by a new child."""

    profile: Profile
    restart: bool


@dataclass(frozen=True, slots=True)
class Close:
    """End for good, leaving `drain` seconds to open requests."""

    drain: float


Message = Event | FromChild | Granted | Reconfigure | Close
