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

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from draftd.profile_tables import HealthPolicy, RestartPolicy
from draftd.workers.backoff import after_failure
from draftd.workers.states import (
    ROOM,
    SLEEP,
    Backoff,
    BecameReady,
    CountRestart,
    Demand,
    Drained,
    Draining,
    Effect,
    Effects,
    Event,
    Exited,
    Failed,
    HealthMissed,
    HealthOk,
    LoadGranted,
    LoadStuck,
    Queued,
    Ready,
    Restart,
    SpawnFailed,
    Start,
    Starting,
    State,
    Stop,
    Stopped,
    Stopping,
    Then,
    TimerDue,
    Unfit,
)


class IllegalTransitionError(AssertionError):
    """An event that cannot happen in this state: a bug in draftd, never a fault from outside."""


Step = tuple[State, Effects]


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers that a step needs; `stop_grace` is how many seconds a child has between SIGTERM and SIGKILL."""

    restart: RestartPolicy
    health: HealthPolicy
    stop_grace: float


def deadline(state: State) -> float | None:
    """When `TimerDue` is to be sent for this state; None if it waits for events only."""
    return getattr(state, "deadline", None)


def has_child(state: State) -> bool:
    """Whether a child may be alive (rule 1)."""
    return isinstance(state, Starting | Ready | Draining | Stopping)


def is_wanted(state: State) -> bool:
    """Whether the worker is meant to run: not stopped, and not on its way there."""
    return not isinstance(state, Stopped) and getattr(state, "then", None) is not Then.STOP


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


# --- transitions --------------------------------------------------------------------------------------------

Handler = Callable[[Any, Any, float, Policy, float], Step]


def _stay(state: State, event: Event, now: float, policy: Policy, jitter: float) -> Step:
    return state, ()


def _queue(state: State, event: Event, now: float, policy: Policy, jitter: float) -> Step:
    """Wait for a load slot because of an order: earlier failures are forgotten."""
    return Queued(now), (Effect.ACQUIRE_LOAD,)


def _wake(state: Stopped, event: Demand, now: float, policy: Policy, jitter: float) -> Step:
    return _queue(state, event, now, policy, jitter) if state.on_demand else (state, ())


def _stop(state: State, event: Stop, now: float, policy: Policy, jitter: float) -> Step:
    """Stop where there is no child to end."""
    return Stopped(now, event.reason in SLEEP, event.refusal), (Effect.RELEASE_LOAD,)


def _spawn(state: Queued, event: LoadGranted, now: float, policy: Policy, jitter: float) -> Step:
    return Starting(now, now + policy.health.start_timeout, state.failures), (Effect.SPAWN,)


def _ready(state: Starting, event: BecameReady, now: float, policy: Policy, jitter: float) -> Step:
    return Ready(now, state.failures), (Effect.RELEASE_LOAD,)


def _terminate(
    state: Starting | Ready | Draining, now: float, policy: Policy, then: Then, reason: str
) -> Step:
    due, was_ready = now + policy.stop_grace, not isinstance(state, Starting)
    return Stopping(now, due, then, reason, state.failures, was_ready), (Effect.TERMINATE,)


def _end(state: Ready, now: float, policy: Policy, then: Then, reason: str, drain: float) -> Step:
    if drain > 0:
        return Draining(now, now + drain, then, reason, state.failures), ()
    return _terminate(state, now, policy, then, reason)


def _stuck(state: Starting, event: LoadStuck, now: float, policy: Policy, jitter: float) -> Step:
    return replace(state, stuck=True), (Effect.RELEASE_LOAD,)


def _unfit_loading(state: Starting, event: Unfit, now: float, policy: Policy, jitter: float) -> Step:
    return _terminate(state, now, policy, Then.FAIL, event.reason)


def _start_timed_out(state: Starting, event: TimerDue, now: float, policy: Policy, jitter: float) -> Step:
    return _terminate(state, now, policy, Then.FAIL, "start_timeout")


def _stop_loading(state: Starting, event: Stop, now: float, policy: Policy, jitter: float) -> Step:
    return _terminate(state, now, policy, Then.STOP, event.reason)


def _restart_loading(state: Starting, event: Restart, now: float, policy: Policy, jitter: float) -> Step:
    return _terminate(state, now, policy, Then.START, event.reason)


def _stop_ready(state: Ready, event: Stop, now: float, policy: Policy, jitter: float) -> Step:
    return _end(state, now, policy, Then.STOP, event.reason, event.drain)


def _restart_ready(state: Ready, event: Restart, now: float, policy: Policy, jitter: float) -> Step:
    return _end(state, now, policy, Then.START, event.reason, event.drain)


def _unfit(state: Ready, event: Unfit, now: float, policy: Policy, jitter: float) -> Step:
    return _end(state, now, policy, Then.FAIL, event.reason, event.drain)


def _healthy(state: Ready, event: HealthOk, now: float, policy: Policy, jitter: float) -> Step:
    return (replace(state, misses=0) if state.misses else state), ()


def _missed(state: Ready, event: HealthMissed, now: float, policy: Policy, jitter: float) -> Step:
    misses = state.misses + 1
    if misses < policy.health.failures:
        return replace(state, misses=misses), ()
    return _terminate(state, now, policy, Then.FAIL, "unhealthy")


def _drained(state: Draining, event: Event, now: float, policy: Policy, jitter: float) -> Step:
    return _terminate(state, now, policy, state.then, state.reason)


def _redirect(state: Draining | Stopping, event: Event, now: float, policy: Policy, jitter: float) -> Step:
    """A new order while the child is being ended: only what follows changes."""
    if isinstance(event, Stop):
        return replace(state, then=Then.STOP, reason=event.reason), ()
    reason = event.reason if isinstance(event, Restart) else state.reason
    return replace(state, then=Then.START, reason=reason), ()


def _undo_sleep(state: Draining | Stopping, event: Demand, now: float, policy: Policy, jitter: float) -> Step:
    """A request came while the worker was being sent to sleep."""
    sleeps = state.then is Then.STOP and state.reason in SLEEP
    return (replace(state, then=Then.START) if sleeps else state), ()


def _stop_draining(state: Draining, event: Stop, now: float, policy: Policy, jitter: float) -> Step:
    if event.drain > 0:
        sooner = min(state.deadline, now + event.drain)
        return replace(state, then=Then.STOP, reason=event.reason, deadline=sooner), ()
    return _terminate(state, now, policy, Then.STOP, event.reason)


def _kill(state: Stopping, event: TimerDue, now: float, policy: Policy, jitter: float) -> Step:
    return replace(state, deadline=None), (Effect.KILL_GROUP,)


def _ended(state: Stopping, event: Exited, now: float, policy: Policy, jitter: float) -> Step:
    after_exit = (Effect.KILL_GROUP, Effect.RELEASE_LOAD)
    if state.then is Then.STOP:
        return Stopped(now, on_demand=state.reason in SLEEP), after_exit
    if state.then is Then.START:
        counted = () if state.reason in SLEEP else (CountRestart(state.reason),)
        return Queued(now), (*after_exit, *counted, Effect.ACQUIRE_LOAD)
    return _failure(state.failures, state.reason, now, policy, jitter, was_ready=state.was_ready)


def _crashed(
    state: Starting | Ready | Draining, event: Exited, now: float, policy: Policy, jitter: float
) -> Step:
    if isinstance(state, Draining) and state.then is not Then.FAIL:
        return _ended(
            Stopping(now, None, state.then, state.reason, state.failures), event, now, policy, jitter
        )
    return _failure(
        state.failures, event.reason, now, policy, jitter, was_ready=not isinstance(state, Starting)
    )


def _spawn_failed(state: Starting, event: SpawnFailed, now: float, policy: Policy, jitter: float) -> Step:
    return _failure(state.failures, event.reason, now, policy, jitter, was_ready=False)


def _failure(
    failures: tuple[float, ...], reason: str, now: float, policy: Policy, jitter: float, *, was_ready: bool
) -> Step:
    after_exit = (Effect.KILL_GROUP, Effect.RELEASE_LOAD)
    recent, delay = after_failure(failures, reason, now, policy.restart, was_ready=was_ready, jitter=jitter)
    if delay is None:
        return Failed(now, reason, recent), after_exit
    return Backoff(now, now + delay, reason, recent), (*after_exit, CountRestart(reason))


def _retry(state: Backoff, event: TimerDue, now: float, policy: Policy, jitter: float) -> Step:
    return Queued(now, state.failures), (Effect.ACQUIRE_LOAD,)


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
    **{(state, event): _stay for state, events in _IGNORED.items() for event in events},
    (Stopped, Start): _queue,
    (Stopped, Demand): _wake,
    (Stopped, Restart): _queue,
    (Stopped, Stop): _stop,
    (Queued, Stop): _stop,
    (Queued, LoadGranted): _spawn,
    (Starting, Restart): _restart_loading,
    (Starting, Stop): _stop_loading,
    (Starting, SpawnFailed): _spawn_failed,
    (Starting, LoadStuck): _stuck,
    (Starting, Unfit): _unfit_loading,
    (Starting, BecameReady): _ready,
    (Starting, Exited): _crashed,
    (Starting, TimerDue): _start_timed_out,
    (Ready, Restart): _restart_ready,
    (Ready, Stop): _stop_ready,
    (Ready, Exited): _crashed,
    (Ready, HealthOk): _healthy,
    (Ready, HealthMissed): _missed,
    (Ready, Unfit): _unfit,
    (Draining, Start): _redirect,
    (Draining, Demand): _undo_sleep,
    (Draining, Restart): _redirect,
    (Draining, Stop): _stop_draining,
    (Draining, Exited): _crashed,
    (Draining, Drained): _drained,
    (Draining, TimerDue): _drained,
    (Stopping, Start): _redirect,
    (Stopping, Demand): _undo_sleep,
    (Stopping, Restart): _redirect,
    (Stopping, Stop): _redirect,
    (Stopping, Exited): _ended,
    (Stopping, SpawnFailed): _ended,
    (Stopping, TimerDue): _kill,
    (Backoff, Start): _queue,
    (Backoff, Restart): _queue,
    (Backoff, Stop): _stop,
    (Backoff, TimerDue): _retry,
    (Failed, Start): _queue,
    (Failed, Restart): _queue,
    (Failed, Stop): _stop,
}
