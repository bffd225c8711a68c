"""A worker's states, the events that change them, the effects that follow, and the messages that bring events.

machine.py says which event does what in which state. All of these are frozen; times are monotonic seconds. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from draftd.profiles import Profile

# Reasons of a stop that the next request undoes.
IDLE, ROOM, PRESSURE = "idle", "room", "pressure"
SLEEP = frozenset({IDLE, ROOM, PRESSURE})
# Reasons of an exit.
GPU_MEMORY, GPU_TIMEOUT, GPU_VICTIM, GPU_FAULT = "gpu_memory", "gpu_timeout", "gpu_victim", "gpu_fault"
OOM = "oom"


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


# --- events -------------------------------------------------------------------------------------------------


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
