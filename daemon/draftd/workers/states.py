"""A worker's states, and the effects of leaving one for another.

machine.py says which event does what in which state. All of these are frozen; times are monotonic seconds. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Then(StrEnum):
    """What follows when a child that we are ending is gone."""

    STOP = "stop"
    START = "start"
    FAIL = "fail"


# --- states -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stopped:
    """No child, and none wanted; with `on_demand`, until a request comes.

    `refusal` says why it had no room in memory when it was to start; "" if that is not why it is stopped.
    """

    since: float
    on_demand: bool = True
    refusal: str = ""

    @property
    def label(self) -> str:
        """A worker that sleeps is not one that was stopped: a request wakes it."""
        return "asleep" if self.on_demand else "stopped"


@dataclass(frozen=True, slots=True)
class Queued:
    """Wanted, waiting for a load slot; no child yet."""

    since: float
    failures: tuple[float, ...] = ()
    label = "waiting"


@dataclass(frozen=True, slots=True)
class Starting:
    """A child is loading its model; `deadline` is the start timeout. One that is `stuck` has lost its load slot."""

    since: float
    deadline: float
    failures: tuple[float, ...] = ()
    stuck: bool = False
    label = "starting"


@dataclass(frozen=True, slots=True)
class Ready:
    """The child serves. `misses` counts health checks failed in a row."""

    since: float
    failures: tuple[float, ...] = ()
    misses: int = 0
    label = "ready"


@dataclass(frozen=True, slots=True)
class Draining:
    """The child finishes its open requests until `deadline`, and is then ended."""

    since: float
    deadline: float
    then: Then
    reason: str
    failures: tuple[float, ...] = ()
    label = "stopping"


@dataclass(frozen=True, slots=True)
class Stopping:
    """The child has been told to end; at `deadline` its group is killed (None: it has been).

    `was_ready`: it had been ready before.
    """

    since: float
    deadline: float | None
    then: Then
    reason: str
    failures: tuple[float, ...] = ()
    was_ready: bool = False
    label = "stopping"


@dataclass(frozen=True, slots=True)
class Backoff:
    """The child failed; the next start is at `deadline`."""

    since: float
    deadline: float
    reason: str
    failures: tuple[float, ...] = ()
    label = "backoff"


@dataclass(frozen=True, slots=True)
class Failed:
    """Too many failures: waits for a person."""

    since: float
    reason: str
    failures: tuple[float, ...] = ()
    label = "failed"


State = Stopped | Queued | Starting | Ready | Draining | Stopping | Backoff | Failed


# --- effects ------------------------------------------------------------------------------------------------


class Effect(StrEnum):
    """What the worker must do after a step, in the order given."""

    ACQUIRE_LOAD = "acquire_load"
    RELEASE_LOAD = "release_load"
    SPAWN = "spawn"
    TERMINATE = "terminate"
    KILL_GROUP = "kill_group"


@dataclass(frozen=True, slots=True)
class CountRestart:
    """Effect: a new child will follow the old one, for this reason."""

    reason: str


Effects = tuple[Effect | CountRestart, ...]
