"""The worker's state machine: each transition by table, failures and delays, and that no clock can be wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.profile_tables import HealthPolicy, RestartPolicy
from draftd.workers import machine
from draftd.workers.events import (
    IDLE,
    ROOM,
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
from draftd.workers.machine import IllegalTransitionError, deadline, step
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
from draftd.workers.transitions import Policy

NOW = 1000.0
BEGAN = 990.0  # since when the states of the table last
POLICY = Policy(RestartPolicy(), HealthPolicy(), stop_grace=10.0)
EARLIER = (985.0,)  # a failure inside the window
GONE = (Effect.KILL_GROUP, Effect.RELEASE_LOAD)
ASK = (Effect.ACQUIRE_LOAD,)
TERM = (Effect.TERMINATE,)

QUEUED = Queued(BEGAN, EARLIER)
STARTING = Starting(BEGAN, 1890.0, EARLIER)
READY = Ready(BEGAN, EARLIER)


def draining(then: Then, reason: str = "operator") -> Draining:
    return Draining(BEGAN, 1020.0, then, reason, EARLIER)


def stopping(then: Then, reason: str = "operator") -> Stopping:
    return Stopping(BEGAN, 1005.0, then, reason, EARLIER)


def ending(then: Then, reason: str = "operator") -> Stopping:
    """Stopping, as a step at NOW enters it."""
    return Stopping(NOW, 1010.0, then, reason, EARLIER)


def leaving(then: Then, reason: str = "operator") -> Stopping:
    """The same for a child that had been ready."""
    return replace(ending(then, reason), was_ready=True)


def backing_off(reason: str) -> Backoff:
    """Backoff after a second failure at NOW."""
    return Backoff(NOW, NOW + 2.0, reason, (*EARLIER, NOW))


SLEEPING = Stopped(BEGAN, on_demand=True)
STOPPED = Stopped(BEGAN, on_demand=False)
BACKOFF = Backoff(BEGAN, 1001.0, "exit", EARLIER)
FAILED = Failed(BEGAN, "exit", EARLIER)

TABLE: list[tuple[State, Event, State, Effects]] = [
    # an order, or a request, wakes what sleeps
    (SLEEPING, Start(), Queued(NOW), ASK),
    (SLEEPING, Demand(), Queued(NOW), ASK),
    (SLEEPING, Restart("operator"), Queued(NOW), ASK),
    (SLEEPING, Stop(), Stopped(NOW, on_demand=False), (Effect.RELEASE_LOAD,)),
    (STOPPED, Start(), Queued(NOW), ASK),
    (STOPPED, Restart("operator"), Queued(NOW), ASK),
    (STOPPED, Demand(), STOPPED, ()),
    (STOPPED, Stop(IDLE), STOPPED, ()),
    # waiting for the load slot
    (QUEUED, LoadGranted(), Starting(NOW, NOW + 900, EARLIER), (Effect.SPAWN,)),
    (QUEUED, Stop(), Stopped(NOW, on_demand=False), (Effect.RELEASE_LOAD,)),
    (QUEUED, Stop(ROOM), Stopped(NOW, on_demand=True), (Effect.RELEASE_LOAD,)),
    (QUEUED, Stop(IDLE), QUEUED, ()),
    (QUEUED, Start(), QUEUED, ()),
    (QUEUED, Demand(), QUEUED, ()),
    (QUEUED, Restart("operator"), QUEUED, ()),
    # loading
    (STARTING, BecameReady(), Ready(NOW, EARLIER), (Effect.RELEASE_LOAD,)),
    (STARTING, LoadStuck(), replace(STARTING, stuck=True), (Effect.RELEASE_LOAD,)),
    (STARTING, Unfit("no_progress"), ending(Then.FAIL, "no_progress"), TERM),
    (replace(STARTING, stuck=True), BecameReady(), Ready(NOW, EARLIER), (Effect.RELEASE_LOAD,)),
    (STARTING, Exited(), backing_off("exit"), (*GONE, CountRestart("exit"))),
    (STARTING, SpawnFailed("spawn"), backing_off("spawn"), (*GONE, CountRestart("spawn"))),
    (STARTING, TimerDue(), ending(Then.FAIL, "start_timeout"), TERM),
    (STARTING, Stop(drain=30), ending(Then.STOP), TERM),
    (STARTING, Restart("config", drain=30), ending(Then.START, "config"), TERM),
    (STARTING, Stop(ROOM), STARTING, ()),
    (STARTING, Start(), STARTING, ()),
    (STARTING, Demand(), STARTING, ()),
    # serving
    (READY, Exited(), backing_off("exit"), (*GONE, CountRestart("exit"))),
    (READY, HealthMissed(), replace(READY, misses=1), ()),
    (replace(READY, misses=1), HealthMissed(), replace(READY, misses=2), ()),
    (replace(READY, misses=2), HealthMissed(), leaving(Then.FAIL, "unhealthy"), TERM),
    (replace(READY, misses=2), HealthOk(), READY, ()),
    (READY, HealthOk(), READY, ()),
    (READY, Unfit("memory"), leaving(Then.FAIL, "memory"), TERM),
    (READY, Unfit("memory", drain=30), Draining(NOW, NOW + 30, Then.FAIL, "memory", EARLIER), ()),
    (READY, Stop(), leaving(Then.STOP), TERM),
    (READY, Stop(IDLE), leaving(Then.STOP, IDLE), TERM),
    (READY, Stop(ROOM), leaving(Then.STOP, ROOM), TERM),
    (READY, Stop(ROOM, drain=30), Draining(NOW, NOW + 30, Then.STOP, ROOM, EARLIER), ()),
    (READY, Stop(drain=30), Draining(NOW, NOW + 30, Then.STOP, "operator", EARLIER), ()),
    (READY, Restart("config"), leaving(Then.START, "config"), TERM),
    (READY, Restart("config", drain=30), Draining(NOW, NOW + 30, Then.START, "config", EARLIER), ()),
    (READY, Start(), READY, ()),
    (READY, Demand(), READY, ()),
    (READY, Drained(), READY, ()),
    # finishing open requests
    (draining(Then.STOP), Drained(), leaving(Then.STOP), TERM),
    (draining(Then.FAIL, "memory"), TimerDue(), leaving(Then.FAIL, "memory"), TERM),
    (draining(Then.STOP), Exited(), Stopped(NOW, on_demand=False), GONE),
    (draining(Then.START), Exited(), Queued(NOW), (*GONE, CountRestart("operator"), *ASK)),
    (draining(Then.FAIL, "memory"), Exited(), backing_off("exit"), (*GONE, CountRestart("exit"))),
    (draining(Then.START), Stop(), leaving(Then.STOP), TERM),
    (draining(Then.START), Stop(drain=5), replace(draining(Then.STOP), deadline=NOW + 5), ()),
    (draining(Then.START), Stop(drain=600), draining(Then.STOP), ()),
    (draining(Then.STOP), Start(), draining(Then.START), ()),
    (draining(Then.STOP), Restart("config"), draining(Then.START, "config"), ()),
    (draining(Then.STOP), Demand(), draining(Then.STOP), ()),
    (draining(Then.STOP, ROOM), Demand(), draining(Then.START, ROOM), ()),
    (draining(Then.START, "config"), Stop(ROOM), draining(Then.START, "config"), ()),
    (draining(Then.STOP), HealthOk(), draining(Then.STOP), ()),
    (draining(Then.STOP), HealthMissed(), draining(Then.STOP), ()),
    (draining(Then.START), Unfit("memory"), draining(Then.START), ()),
    # being ended
    (stopping(Then.STOP), Exited(), Stopped(NOW, on_demand=False), GONE),
    (stopping(Then.STOP, IDLE), Exited(), Stopped(NOW, on_demand=True), GONE),
    (stopping(Then.STOP, ROOM), Exited(), Stopped(NOW, on_demand=True), GONE),
    (stopping(Then.START, ROOM), Exited(), Queued(NOW), (*GONE, *ASK)),
    (stopping(Then.STOP, ROOM), Demand(), stopping(Then.START, ROOM), ()),
    (stopping(Then.START), Exited(), Queued(NOW), (*GONE, CountRestart("operator"), *ASK)),
    (stopping(Then.START, IDLE), Exited(), Queued(NOW), (*GONE, *ASK)),
    (
        stopping(Then.FAIL, "unhealthy"),
        Exited(),
        backing_off("unhealthy"),
        (*GONE, CountRestart("unhealthy")),
    ),
    (stopping(Then.STOP), LoadStuck(), stopping(Then.STOP), ()),
    (stopping(Then.STOP), SpawnFailed("spawn"), Stopped(NOW, on_demand=False), GONE),
    (stopping(Then.STOP), TimerDue(), replace(stopping(Then.STOP), deadline=None), (Effect.KILL_GROUP,)),
    (stopping(Then.STOP), Start(), stopping(Then.START), ()),
    (stopping(Then.FAIL, "unhealthy"), Restart("operator"), stopping(Then.START), ()),
    (stopping(Then.START), Stop(), stopping(Then.STOP), ()),
    (stopping(Then.STOP, IDLE), Stop(), stopping(Then.STOP), ()),
    (stopping(Then.STOP), Stop(IDLE), stopping(Then.STOP), ()),
    (stopping(Then.START, "config"), Stop(IDLE), stopping(Then.START, "config"), ()),
    (stopping(Then.STOP, IDLE), Demand(), stopping(Then.START, IDLE), ()),
    (stopping(Then.STOP), Demand(), stopping(Then.STOP), ()),
    (stopping(Then.FAIL, IDLE), Demand(), stopping(Then.FAIL, IDLE), ()),
    (stopping(Then.STOP), BecameReady(), stopping(Then.STOP), ()),
    (stopping(Then.STOP), Unfit("memory"), stopping(Then.STOP), ()),
    # waiting after a failure
    (BACKOFF, TimerDue(), Queued(NOW, EARLIER), ASK),
    (BACKOFF, Start(), Queued(NOW), ASK),
    (BACKOFF, Restart("operator"), Queued(NOW), ASK),
    (BACKOFF, Stop(), Stopped(NOW, on_demand=False), (Effect.RELEASE_LOAD,)),
    (BACKOFF, Stop(ROOM), BACKOFF, ()),
    (BACKOFF, Demand(), BACKOFF, ()),
    # given up
    (FAILED, Start(), Queued(NOW), ASK),
    (FAILED, Restart("operator"), Queued(NOW), ASK),
    (FAILED, Stop(), Stopped(NOW, on_demand=False), (Effect.RELEASE_LOAD,)),
    (FAILED, Stop(IDLE), FAILED, ()),
    (FAILED, Demand(), FAILED, ()),
]


def _id(value: Any) -> str:
    then = f"-{value.then}" if hasattr(value, "then") else ""
    return f"{type(value).__name__}{then}" if not isinstance(value, tuple) else ""


@pytest.mark.parametrize(("state", "event", "after", "effects"), TABLE, ids=_id)
def test_each_transition_leads_where_the_rules_say(
    state: State, event: Event, after: State, effects: Effects
) -> None:
    assert step(state, event, NOW, POLICY) == (after, effects)


STATES: list[State] = [
    SLEEPING, QUEUED, STARTING, READY, draining(Then.STOP), stopping(Then.STOP), BACKOFF, FAILED
]  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=_id)
def test_an_open_request_may_end_in_any_state(state: State) -> None:
    after, _ = step(state, Drained(), NOW, POLICY)
    assert after == (leaving(Then.STOP) if isinstance(state, Draining) else state)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (SLEEPING, Exited()),
        (SLEEPING, TimerDue()),
        (SLEEPING, LoadGranted()),
        (QUEUED, BecameReady()),
        (QUEUED, Exited()),
        (STARTING, LoadGranted()),
        (READY, LoadGranted()),
        (READY, BecameReady()),
        (READY, TimerDue()),
        (BACKOFF, Exited()),
        (BACKOFF, LoadGranted()),
        (FAILED, TimerDue()),
    ],
    ids=_id,
)
def test_what_cannot_happen_is_a_bug_of_ours_and_said_so(state: State, event: Event) -> None:
    with pytest.raises(IllegalTransitionError, match=f"{type(event).__name__} in {type(state).__name__}"):
        step(state, event, NOW, POLICY)


# --- failures and delays ------------------------------------------------------------------------------------


def crash(state: State, now: float, policy: Policy = POLICY, jitter: float = 0.0) -> State:
    return step(state, Exited(), now, policy, jitter)[0]


def start_again(state: Backoff) -> Starting:
    queued, _ = step(state, TimerDue(), state.deadline, POLICY)
    starting, _ = step(queued, LoadGranted(), state.deadline, POLICY)
    assert isinstance(starting, Starting)
    return starting


def test_a_crash_loop_waits_twice_as_long_each_time_and_is_given_up_at_the_fifth_failure() -> None:
    state: State = Starting(0.0, 900.0)
    waits: list[float] = []
    for _ in range(4):
        state = crash(state, now=state.since)
        assert isinstance(state, Backoff)
        waits.append(state.deadline - state.since)
        state = start_again(state)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert isinstance(crash(state, now=state.since), Failed)


@pytest.mark.parametrize(
    ("reason", "delay"), [("exit", 0.1), ("gpu_victim", 0.1), ("gpu_memory", 60.0), ("gpu_timeout", 60.0)]
)
def test_what_the_same_load_would_meet_again_is_not_tried_again_at_once(reason: str, delay: float) -> None:
    state, effects = step(Ready(BEGAN), Exited(reason), NOW, POLICY)
    assert state == Backoff(NOW, NOW + delay, reason, (NOW,))
    assert CountRestart(reason) in effects


def test_failures_older_than_the_window_are_forgotten() -> None:
    window = POLICY.restart.window
    old = (NOW - window - 1, NOW - window, NOW - window + 1)
    state = crash(Ready(BEGAN, old), NOW)
    assert isinstance(state, Backoff)
    assert state.failures == (NOW - window + 1, NOW)
    spread = tuple(NOW - window - 4 + i for i in range(4))
    assert isinstance(crash(Ready(BEGAN, spread), NOW), Backoff)
    close = tuple(NOW - window + 1 + i for i in range(4))
    assert isinstance(crash(Ready(BEGAN, close), NOW), Failed)


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    ("ready_for", "earlier", "wait"),
    [
        (0.1, (), 0.1),
        (86_400.0, (), 0.1),
        (60.0, (NOW - 100,), 2.0),
        (3600.0, (NOW - 400,), 0.1),
    ],
)
def test_a_single_failure_of_a_worker_that_had_been_ready_is_answered_at_once(
    ready_for: float, earlier: tuple[float, ...], wait: float
) -> None:
    state = crash(Ready(NOW - ready_for, earlier), NOW)
    assert isinstance(state, Backoff)
    assert state.deadline - NOW == pytest.approx(wait)


def test_a_worker_that_had_been_ready_and_was_ended_as_unfit_is_back_at_once_too() -> None:
    ready = Ready(NOW - 5)
    hung, _ = step(replace(ready, misses=2), HealthMissed(), NOW, POLICY)
    draining, _ = step(ready, Unfit("memory", drain=30), NOW, POLICY)
    ended, _ = step(draining, Drained(), NOW + 1, POLICY)
    for state in (hung, draining, ended):
        after = crash(state, NOW + 5)
        assert isinstance(after, Backoff)
        assert after.deadline - after.since == pytest.approx(0.1)


def test_the_failure_of_a_worker_that_never_became_ready_is_not_however_long_it_loaded() -> None:
    loading = Starting(NOW - 800, NOW + 100)
    timed_out, _ = step(loading, TimerDue(), NOW, POLICY)
    for state in (loading, timed_out):
        after = crash(state, NOW)
        assert isinstance(after, Backoff)
        assert after.deadline - NOW == 1.0


def test_an_order_forgives_earlier_failures() -> None:
    for state in (BACKOFF, FAILED):
        for order in (Start(), Restart("operator")):
            queued, _ = step(state, order, NOW, POLICY)
            assert isinstance(queued, Queued)
            assert queued.failures == ()


# --- the clock ----------------------------------------------------------------------------------------------


def shifted(state: State, by: float) -> State:
    moved: dict[str, Any] = {"since": state.since + by}
    if (due := deadline(state)) is not None:
        moved["deadline"] = due + by
    if hasattr(state, "failures"):
        moved["failures"] = tuple(at + by for at in state.failures)
    return replace(state, **moved)


@given(st.sampled_from(TABLE), st.integers(-1000, 10**9))
def test_only_durations_count_so_that_no_clock_can_be_wrong(
    row: tuple[State, Event, State, Effects], by: int
) -> None:
    state, event, after, effects = row
    assert step(shifted(state, by), event, NOW + by, POLICY) == (shifted(after, by), effects)


def test_the_machine_reads_no_clock_and_no_dice() -> None:
    assert not {"time", "datetime", "random", "asyncio"} & set(vars(machine))
