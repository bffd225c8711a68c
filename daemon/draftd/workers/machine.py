"""The life of one worker as a state machine. Pure: time and jitter are arguments, effects are returned.

Rules that every transition keeps:

1.  A child is alive only in Starting, Ready, Draining and Stopping. `SPAWN` is emitted only by the step into
    Starting, and Starting is entered only from Queued; so a worker never has two live children.
2.  Every way out of those four states goes through `Exited` (or `SpawnFailed`): nothing is spawned while an
    old child may still hold the port or the memory.
3.  A load slot is asked for on entering Queued (`ACQUIRE_LOAD`) and given back (`RELEASE_LOAD`) on becoming
    ready, on exit, when the load is stuck, and when a stop ends Queued. Giving it back twice is harmless.
4.  What is left of the child's process group is killed (`KILL_GROUP`) after each exit, whoever asked for it.
5.  A failure is an exit that nobody asked for, or a stop that we decided on because the child was unfit. backoff.py
    says what follows: Backoff for a while, or Failed.
6.  Only an order ends Failed: `Start`, `Restart` or `Stop`. A client's `Demand` wakes Stopped, unless an operator
    stopped the worker.
7.  Late events of an old child never get here (worker.py drops them by the child's number); an event that a
    state does not expect raises IllegalTransitionError.
8.  A stop because no requests come takes effect in Ready only, a stop that makes room in Queued too: anywhere else
    it comes too late, and would undo an order.
"""

from __future__ import annotations

from draftd.workers import transitions
from draftd.workers.events import (
    ROOM,
    SLEEP,
    BecameReady,
    Demand,
    Drained,
    Event,
    Exited,
    HealthMissed,
    HealthOk,
    LoadGranted,
    LoadStuck,
    Restart,
    SpawnFailed,
    Start,
    Stop,
    TimerDue,
    Unfit,
)
from draftd.workers.states import (
    Backoff,
    Draining,
    Failed,
    Queued,
    Ready,
    Starting,
    State,
    Stopped,
    Stopping,
    Then,
)
from draftd.workers.transitions import Handler, Policy, Step


class IllegalTransitionError(AssertionError):
    """An event that cannot happen in this state: a bug in draftd, never a fault from outside."""


def deadline(state: State) -> float | None:
    """When `TimerDue` is to be sent for this state; None if it waits for events only."""
    return getattr(state, "deadline", None)


def has_child(state: State) -> bool:
    """Whether a child may be alive (rule 1)."""
    return isinstance(state, Starting | Ready | Draining | Stopping)


def is_wanted(state: State) -> bool:
    """Whether the worker is meant to run: not stopped, and not on its way there."""
    return not isinstance(state, Stopped) and getattr(state, "then", None) is not Then.STOP


def loads_before(state: State, other: State) -> bool:
    """Whether a worker in this state is about to load, before one in the `other` state."""
    return isinstance(state, Starting | Queued) and _turn(state) < _turn(other)


def _turn(state: State) -> tuple[int, float]:
    match state:
        case Starting():
            return 0, 0.0
        case Queued():
            return 1, state.since
        case _:
            return 2, 0.0


def step(state: State, event: Event, now: float, policy: Policy, jitter: float = 0.0) -> Step:
    """The next state and the effects to perform. Raises IllegalTransitionError (rule 7)."""
    if isinstance(event, Stop) and event.reason in SLEEP and not _may_sleep(state, event.reason):
        return state, ()  # rule 8
    handler = _TABLE.get((type(state), type(event)))
    if handler is None:
        raise IllegalTransitionError(f"{type(event).__name__} in {type(state).__name__}")
    return handler(state, event, now, policy, jitter)


def _may_sleep(state: State, reason: str) -> bool:
    return isinstance(state, Ready) or (reason == ROOM and isinstance(state, Queued))


# Orders and news that change nothing in these states.
_IGNORED: dict[type, tuple[type, ...]] = {
    Stopped: (Drained,),
    Queued: (Start, Demand, Restart, Drained),
    Starting: (Start, Demand, Drained),
    Ready: (Start, Demand, Drained),
    Draining: (HealthOk, HealthMissed, Unfit),
    Stopping: (LoadStuck, BecameReady, HealthOk, HealthMissed, Unfit, Drained),
    Backoff: (Demand, Drained),
    Failed: (Demand, Drained),
}
_TABLE: dict[tuple[type, type], Handler] = {
    **{(state, event): transitions.stay for state, events in _IGNORED.items() for event in events},
    (Stopped, Start): transitions.queue,
    (Stopped, Demand): transitions.wake,
    (Stopped, Restart): transitions.queue,
    (Stopped, Stop): transitions.stop,
    (Queued, Stop): transitions.stop,
    (Queued, LoadGranted): transitions.spawn,
    (Starting, Restart): transitions.restart_loading,
    (Starting, Stop): transitions.stop_loading,
    (Starting, SpawnFailed): transitions.spawn_failed,
    (Starting, LoadStuck): transitions.stuck,
    (Starting, Unfit): transitions.unfit_loading,
    (Starting, BecameReady): transitions.ready,
    (Starting, Exited): transitions.crashed,
    (Starting, TimerDue): transitions.start_timed_out,
    (Ready, Restart): transitions.restart_ready,
    (Ready, Stop): transitions.stop_ready,
    (Ready, Exited): transitions.crashed,
    (Ready, HealthOk): transitions.healthy,
    (Ready, HealthMissed): transitions.missed,
    (Ready, Unfit): transitions.unfit,
    (Draining, Start): transitions.redirect,
    (Draining, Demand): transitions.undo_sleep,
    (Draining, Restart): transitions.redirect,
    (Draining, Stop): transitions.stop_draining,
    (Draining, Exited): transitions.crashed,
    (Draining, Drained): transitions.drained,
    (Draining, TimerDue): transitions.drained,
    (Stopping, Start): transitions.redirect,
    (Stopping, Demand): transitions.undo_sleep,
    (Stopping, Restart): transitions.redirect,
    (Stopping, Stop): transitions.redirect,
    (Stopping, Exited): transitions.ended,
    (Stopping, SpawnFailed): transitions.ended,
    (Stopping, TimerDue): transitions.kill,
    (Backoff, Start): transitions.queue,
    (Backoff, Restart): transitions.queue,
    (Backoff, Stop): transitions.stop,
    (Backoff, TimerDue): transitions.retry,
    (Failed, Start): transitions.queue,
    (Failed, Restart): transitions.queue,
    (Failed, Stop): transitions.stop,
}
