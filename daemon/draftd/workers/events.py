"""The events that change a worker's state, and the messages that bring them.

machine.py says which event does what in which state. All of these are frozen; times are seconds. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from draftd.profiles import Profile

# Reasons of a stop that the next request undoes.
IDLE, ROOM, PRESSURE = "idle", "room", "pressure"
SLEEP = frozenset({IDLE, ROOM, PRESSURE})
# Reasons of an exit.
GPU_MEMORY, GPU_TIMEOUT, GPU_VICTIM, GPU_FAULT = "gpu_memory", "gpu_timeout", "gpu_victim", "gpu_fault"
OOM = "oom"


@dataclass(frozen=True, slots=True)
class Start:
    """The worker should run. `wanted`: a person says so, and others may have to make room; else it starts with the
    daemon, and needs room that is free.
    """

    wanted: bool = True


@dataclass(frozen=True, slots=True)
class Demand:
    """A request has come for the worker."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The worker is not wanted any more. Open requests have `drain` seconds to finish.

    `refusal` says why there is no room in memory for it, if that is the reason.
    """

    reason: str = "operator"
    drain: float = 0.0
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Restart:
    """The worker is wanted with a new child. Open requests have `drain` seconds to finish."""

    reason: str
    drain: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadGranted:
    """The load slot is ours."""


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The child could not be started at all."""

    reason: str


@dataclass(frozen=True, slots=True)
class LoadStuck:
    """The load makes no progress: it should not keep others waiting."""


@dataclass(frozen=True, slots=True)
class BecameReady:
    """The child owns its port and has generated one token."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The child is gone, and reaped. `reason` is for one that nobody asked for."""

    reason: str = "exit"


@dataclass(frozen=True, slots=True)
class HealthOk:
    """The child answered a health check."""


@dataclass(frozen=True, slots=True)
class HealthMissed:
    """The child did not answer a health check, or answered badly."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """The child must be replaced: a failure that we noticed (`reason`: memory, stalled, ...)."""

    reason: str
    drain: float = 0.0


@dataclass(frozen=True, slots=True)
class Drained:
    """No request is open any more."""


@dataclass(frozen=True, slots=True)
class TimerDue:
    """The state's deadline has come."""


Event = (
    Start
    | Demand
    | Stop
    | Restart
    | LoadGranted
    | SpawnFailed
    | LoadStuck
    | BecameReady
    | Exited
    | HealthOk
    | HealthMissed
    | Unfit
    | Drained
    | TimerDue
)


# --- messages -----------------------------------------------------------------------------------------------
# What a worker finds in its inbox: events, and four kinds of message that it handles before the machine does.


@dataclass(frozen=True, slots=True)
class FromChild:
    """An event of a child, with the child's number; void once there is another child."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class Granted:
    """A load slot, with the ticket that asked for it; void once there is another ticket."""

    ticket: object


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """Serve this profile from now on; with `restart`, by a new child."""

    profile: Profile
    restart: bool


@dataclass(frozen=True, slots=True)
class Close:
    """End for good; open requests have `drain` seconds to finish."""

    drain: float


Message = Event | FromChild | Granted | Reconfigure | Close
