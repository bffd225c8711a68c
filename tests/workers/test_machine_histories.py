"""The rules of the worker's state machine, by random histories of a tiny world."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from draftd.profile_tables import HealthPolicy, RestartPolicy
from draftd.workers.backoff import JITTER
from draftd.workers.events import (
    IDLE,
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
from draftd.workers.machine import deadline, has_child, step
from draftd.workers.states import (
    Backoff,
    CountRestart,
    Draining,
    Effect,
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

jitters = st.floats(0, 1, exclude_max=True)


SPEECH: dict[str, list[Event]] = {  # what the monitor and the exit watcher can report about a child
    "spawning": [
        BecameReady(),
        BecameReady(),
        SpawnFailed("spawn"),
        LoadStuck(),
        Unfit("no_progress"),
        Exited(),
        Exited("gpu_memory"),
    ],
    "ready": [HealthOk(), HealthMissed(), Unfit("memory"), Unfit("memory", drain=30), Stop(IDLE), Exited()],
}
OUTSIDE: list[Event] = [  # what users, clients and reloads do
    Start(),
    Stop(),
    Stop("removed", drain=30),
    Stop(ROOM),
    Stop(ROOM, drain=30),
    Restart("operator"),
    Restart("config", drain=30),
    Demand(),
    Drained(),
]
PAUSES = [0.1, 25.0, 200.0]
SHORT = Policy(
    RestartPolicy(max_failures=2, window=100),
    HealthPolicy(failures=2, start_timeout=50),
    stop_grace=5,
)


class World:
    """One worker, its child and its place in the load queue.

    Every effect is carried out at once, as the worker's task does, and every rule is checked after each step.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.state: State = Stopped(self.now)
        self.child: str | None = None
        self.slot: str | None = None  # asked or held
        self.stopped_by_order = False

    def possible(self) -> list[Event | float]:
        """What can happen next: an event or a pause; what drives the worker on is listed more often."""
        likely: list[Event] = SPEECH[self.child] if self.child else []
        likely = likely + [LoadGranted()] * (self.slot == "asked")
        likely = likely + [TimerDue()] * (deadline(self.state) is not None)
        return [*likely * 3, *OUTSIDE, *PAUSES]

    def goes_on(self, happening: Event | float, jitter: float = 0.5) -> None:
        before = self.state
        if isinstance(happening, float):
            self.now += happening
            return
        self.prepare(happening)
        self.state, effects = step(before, happening, self.now, SHORT, jitter)
        if isinstance(happening, Exited | SpawnFailed):
            assert effects[0] is Effect.KILL_GROUP  # before anything that could start a new group
            self.child = None
        for effect in effects:
            self.carry_out(effect)
        self.check(before, happening)

    def prepare(self, event: Event) -> None:
        match event:
            case LoadGranted():
                self.slot = "held"
            case BecameReady():
                self.child = "ready"
            case TimerDue():
                self.now = max(self.now, deadline(self.state) or 0.0)
            case Stop(reason) if reason not in SLEEP:
                self.stopped_by_order = True
            case Start() | Restart():
                self.stopped_by_order = False

    def carry_out(self, effect: Effect | CountRestart) -> None:
        match effect:
            case Effect.ACQUIRE_LOAD:
                assert self.slot is None
                self.slot = "asked"
            case Effect.RELEASE_LOAD:
                self.slot = None
            case Effect.SPAWN:
                assert self.child is None
                assert self.slot == "held"
                self.child = "spawning"
            case Effect.TERMINATE:
                assert self.child is not None

    def check(self, before: State, event: Event) -> None:
        assert has_child(self.state) == (self.child is not None)
        self.check_slot()
        self.check_deadline(before, event)
        self.check_failures()
        if self.stopped_by_order:
            assert isinstance(self.state, Stopped | Draining | Stopping)
            assert getattr(self.state, "then", Then.STOP) is Then.STOP
            assert not getattr(self.state, "on_demand", False)
        if isinstance(before, Failed) and not isinstance(event, Start | Restart | Stop):
            assert self.state == before

    def check_slot(self) -> None:
        match self.state:
            case Queued():
                assert self.slot == "asked"
            case Starting():
                assert self.slot == (None if self.state.stuck else "held")
            case Stopping():
                assert self.slot != "asked"
            case _:
                assert self.slot is None

    def check_deadline(self, before: State, event: Event) -> None:
        limits = {
            Starting: SHORT.health.start_timeout,
            Draining: 30.0,
            Stopping: SHORT.stop_grace,
            Backoff: SHORT.restart.max_delay * (1 + JITTER),
        }
        due = deadline(self.state)
        if due is not None:
            assert 0 < due - self.state.since <= limits[type(self.state)] + 1e-6
        if isinstance(event, TimerDue):
            assert self.state != before
            assert due is None or due > self.now  # else the same timer would be due for ever

    def check_failures(self) -> None:
        if isinstance(self.state, Backoff | Failed):
            recent = tuple(at for at in self.state.failures if self.state.since - at < SHORT.restart.window)
            assert self.state.failures == recent
            assert (len(recent) >= SHORT.restart.max_failures) == isinstance(self.state, Failed)


histories = st.lists(st.integers(0, 999), min_size=20, max_size=80)


def live(history: list[int], jitter: float) -> World:
    world = World()
    for pick in history:
        possible = world.possible()
        world.goes_on(possible[pick % len(possible)], jitter)
    return world


@settings(max_examples=4 * settings().max_examples)
@given(histories, jitters)
def test_no_history_that_the_world_can_produce_breaks_a_rule(history: list[int], jitter: float) -> None:
    live(history, jitter)


@given(histories)
def test_after_a_stop_a_worker_is_stopped_as_soon_as_its_child_is_gone(history: list[int]) -> None:
    world = live(history, 0.5)
    world.goes_on(Stop("removed"))
    if world.child:
        assert isinstance(world.state, Stopping)
        world.goes_on(Exited())
    assert isinstance(world.state, Stopped)
    assert world.slot is None


@given(histories)
def test_after_a_start_a_worker_is_served_as_soon_as_the_world_allows(history: list[int]) -> None:
    world = live(history, 0.5)
    world.goes_on(Start())
    if isinstance(world.state, Draining | Stopping):
        world.goes_on(Exited())
    if isinstance(world.state, Queued):
        world.goes_on(LoadGranted())
    if isinstance(world.state, Starting):
        world.goes_on(BecameReady())
    assert isinstance(world.state, Ready)
