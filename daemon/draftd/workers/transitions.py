"""What each transition of a worker does: the next state, and the effects. Pure.

machine.py says which of them an event brings about in which state, and has the rules that all of them keep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from draftd.profile_tables import HealthPolicy, RestartPolicy
from draftd.workers.backoff import after_failure
from draftd.workers.events import (
    SLEEP,
    BecameReady,
    Demand,
    Event,
    Exited,
    HealthMissed,
    HealthOk,
    LoadGranted,
    LoadStuck,
    Restart,
    SpawnFailed,
    Stop,
    TimerDue,
    Unfit,
)
from draftd.workers.states import (
    Backoff,
    CountRestart,
    Draining,
    Effect,
    Effects,
    Failed,
    Queued,
    Ready,
    Starting,
    State,
    Stopped,
    Stopping,
    Then,
)

Step = tuple[State, Effects]


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers that a step needs; `stop_grace` is how many seconds a child has between SIGTERM and SIGKILL."""

    restart: RestartPolicy
    health: HealthPolicy
    stop_grace: float


Handler = Callable[[Any, Any, float, Policy, float], Step]


def stay(state: State, event: Event, now: float, policy: Policy, jitter: float) -> Step:
    return state, ()


def queue(state: State, event: Event, now: float, policy: Policy, jitter: float) -> Step:
    """Wait for a load slot because of an order: earlier failures are forgotten."""
    return Queued(now), (Effect.ACQUIRE_LOAD,)


def wake(state: Stopped, event: Demand, now: float, policy: Policy, jitter: float) -> Step:
    return queue(state, event, now, policy, jitter) if state.on_demand else (state, ())


def stop(state: State, event: Stop, now: float, policy: Policy, jitter: float) -> Step:
    """Stop where there is no child to end."""
    return Stopped(now, event.reason in SLEEP, event.refusal), (Effect.RELEASE_LOAD,)


def spawn(state: Queued, event: LoadGranted, now: float, policy: Policy, jitter: float) -> Step:
    return Starting(now, now + policy.health.start_timeout, state.failures), (Effect.SPAWN,)


def ready(state: Starting, event: BecameReady, now: float, policy: Policy, jitter: float) -> Step:
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


def stuck(state: Starting, event: LoadStuck, now: float, policy: Policy, jitter: float) -> Step:
    return replace(state, stuck=True), (Effect.RELEASE_LOAD,)


def unfit_loading(state: Starting, event: Unfit, now: float, policy: Policy, jitter: float) -> Step:
    return _terminate(state, now, policy, Then.FAIL, event.reason)


def start_timed_out(state: Starting, event: TimerDue, now: float, policy: Policy, jitter: float) -> Step:
    return _terminate(state, now, policy, Then.FAIL, "start_timeout")


def stop_loading(state: Starting, event: Stop, now: float, policy: Policy, jitter: float) -> Step:
    return _terminate(state, now, policy, Then.STOP, event.reason)


def restart_loading(state: Starting, event: Restart, now: float, policy: Policy, jitter: float) -> Step:
    return _terminate(state, now, policy, Then.START, event.reason)


def stop_ready(state: Ready, event: Stop, now: float, policy: Policy, jitter: float) -> Step:
    return _end(state, now, policy, Then.STOP, event.reason, event.drain)


def restart_ready(state: Ready, event: Restart, now: float, policy: Policy, jitter: float) -> Step:
    return _end(state, now, policy, Then.START, event.reason, event.drain)


def unfit(state: Ready, event: Unfit, now: float, policy: Policy, jitter: float) -> Step:
    return _end(state, now, policy, Then.FAIL, event.reason, event.drain)


def healthy(state: Ready, event: HealthOk, now: float, policy: Policy, jitter: float) -> Step:
    return (replace(state, misses=0) if state.misses else state), ()


def missed(state: Ready, event: HealthMissed, now: float, policy: Policy, jitter: float) -> Step:
    misses = state.misses + 1
    if misses < policy.health.failures:
        return replace(state, misses=misses), ()
    return _terminate(state, now, policy, Then.FAIL, "unhealthy")


def drained(state: Draining, event: Event, now: float, policy: Policy, jitter: float) -> Step:
    return _terminate(state, now, policy, state.then, state.reason)


def redirect(state: Draining | Stopping, event: Event, now: float, policy: Policy, jitter: float) -> Step:
    """A new order while the child is being ended: only what follows changes."""
    if isinstance(event, Stop):
        return replace(state, then=Then.STOP, reason=event.reason), ()
    reason = event.reason if isinstance(event, Restart) else state.reason
    return replace(state, then=Then.START, reason=reason), ()


def undo_sleep(state: Draining | Stopping, event: Demand, now: float, policy: Policy, jitter: float) -> Step:
    """A request came while the worker was being sent to sleep."""
    sleeps = state.then is Then.STOP and state.reason in SLEEP
    return (replace(state, then=Then.START) if sleeps else state), ()


def stop_draining(state: Draining, event: Stop, now: float, policy: Policy, jitter: float) -> Step:
    if event.drain > 0:
        sooner = min(state.deadline, now + event.drain)
        return replace(state, then=Then.STOP, reason=event.reason, deadline=sooner), ()
    return _terminate(state, now, policy, Then.STOP, event.reason)


def kill(state: Stopping, event: TimerDue, now: float, policy: Policy, jitter: float) -> Step:
    return replace(state, deadline=None), (Effect.KILL_GROUP,)


def ended(state: Stopping, event: Exited, now: float, policy: Policy, jitter: float) -> Step:
    after_exit = (Effect.KILL_GROUP, Effect.RELEASE_LOAD)
    if state.then is Then.STOP:
        return Stopped(now, on_demand=state.reason in SLEEP), after_exit
    if state.then is Then.START:
        counted = () if state.reason in SLEEP else (CountRestart(state.reason),)
        return Queued(now), (*after_exit, *counted, Effect.ACQUIRE_LOAD)
    return _failure(state.failures, state.reason, now, policy, jitter, was_ready=state.was_ready)


def crashed(
    state: Starting | Ready | Draining, event: Exited, now: float, policy: Policy, jitter: float
) -> Step:
    if isinstance(state, Draining) and state.then is not Then.FAIL:
        return ended(
            Stopping(now, None, state.then, state.reason, state.failures), event, now, policy, jitter
        )
    return _failure(
        state.failures, event.reason, now, policy, jitter, was_ready=not isinstance(state, Starting)
    )


def spawn_failed(state: Starting, event: SpawnFailed, now: float, policy: Policy, jitter: float) -> Step:
    return _failure(state.failures, event.reason, now, policy, jitter, was_ready=False)


def _failure(
    failures: tuple[float, ...], reason: str, now: float, policy: Policy, jitter: float, *, was_ready: bool
) -> Step:
    after_exit = (Effect.KILL_GROUP, Effect.RELEASE_LOAD)
    recent, delay = after_failure(failures, reason, now, policy.restart, was_ready=was_ready, jitter=jitter)
    if delay is None:
        return Failed(now, reason, recent), after_exit
    return Backoff(now, now + delay, reason, recent), (*after_exit, CountRestart(reason))


def retry(state: Backoff, event: TimerDue, now: float, policy: Policy, jitter: float) -> Step:
    return Queued(now, state.failures), (Effect.ACQUIRE_LOAD,)
