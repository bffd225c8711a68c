"""What a worker does beside its states: places, ports, monitors, exits, last words. Its children are pretended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from draftd import first_start
from draftd.errors import WorkerError
from draftd.pressure import Pressure
from draftd.profile_tables import HealthPolicy, RestartPolicy
from draftd.profiles import Profile
from draftd.workers import children as module
from draftd.workers import kernel_kills, memory
from draftd.workers.states import (
    IDLE,
    Backoff,
    BecameReady,
    Close,
    Failed,
    HealthMissed,
    LoadStuck,
    Reconfigure,
    Restart,
    Start,
    Starting,
    Stop,
    Stopped,
    Unfit,
)
from draftd.workers.worker import Worker
from tests.workers.pretended import AT_ONCE, NEVER, World, settle

AGAIN_AT_ONCE = RestartPolicy(initial_delay=AT_ONCE, max_delay=AT_ONCE, stable_delay=AT_ONCE)
PROFILE = Profile(name="a", model="m", restart=AGAIN_AT_ONCE)


@asynccontextmanager
async def running(world: World, *profiles: Profile, start: bool = True) -> AsyncIterator[list[Worker]]:
    """Workers of these profiles (of PROFILE by default), started, with their first children loading if they may."""
    with world.patched():
        async with asyncio.TaskGroup() as tasks:
            workers = [Worker(profile, world.services) for profile in profiles or (PROFILE,)]
            for one in workers:
                tasks.create_task(one.run())
                if start:
                    one.post(Start())
            await settle()
            try:
                yield workers
            finally:
                for one in workers:
                    one.post(Close(0.0))
    assert world.faults == []


@asynccontextmanager
async def ready(world: World, profile: Profile = PROFILE) -> AsyncIterator[Worker]:
    """One worker whose child is ready."""
    async with running(world, profile) as (one,):
        world.tell(BecameReady())
        await settle()
        yield one


def states(workers: Iterable[Worker]) -> list[str]:
    return [type(one.state).__name__ for one in workers]


async def test_a_place_to_load_is_given_back_when_the_child_is_ready_or_gone() -> None:
    world = World()
    profiles = [PROFILE.model_copy(update={"name": name}) for name in "abc"]
    async with running(world, *profiles) as workers:
        assert states(workers) == ["Starting", "Queued", "Queued"]
        world.tell(BecameReady())
        await settle()
        assert states(workers) == ["Ready", "Starting", "Queued"]
        world.alive[-1].end()
        await settle()
        assert isinstance(workers[2].state, Starting)
        workers[2].post(Stop())
        await settle()
        assert states(workers) == ["Ready", "Starting", "Stopped"]
        world.tell(BecameReady())
        await settle()
        assert world.gate.idle


async def test_a_place_that_was_granted_to_an_order_since_undone_is_given_to_nobody_twice() -> None:
    world = World(loads=1)
    async with running(world) as (one,):
        one.post(Stop())
        await settle()
        world.gate.acquire("another", lambda: None)
        one.post(Start())
        await settle()
        assert states([one]) == ["Queued"]
        one.post(Stop())
        one.post(Start())
        world.gate.release("another")  # the grant is in the inbox, behind these orders
        await settle()
        assert states([one]) == ["Starting"]
        assert len(world.alive) == 1


@pytest.mark.fault(57)
async def test_a_load_that_is_stuck_gives_its_place_to_the_next_and_may_still_get_ready() -> None:
    world = World()
    async with running(world, PROFILE, PROFILE.model_copy(update={"name": "b"})) as workers:
        world.tell(LoadStuck())
        stuck = world.tell
        await settle()
        assert states(workers) == ["Starting", "Starting"]
        stuck(BecameReady())
        world.tell(BecameReady())
        await settle()
        assert states(workers) == ["Ready", "Ready"]
        assert world.gate.idle


@pytest.mark.fault(57)
@pytest.mark.parametrize("reason", ["no_progress", "start_timeout"])
async def test_a_load_that_never_ended_is_told_with_what_its_readiness_check_was_answered(
    reason: str,
) -> None:
    world = World()
    world.words = ["its last line"]
    health = HealthPolicy(start_timeout=0.5 if reason == "start_timeout" else 60)
    profile = PROFILE.model_copy(update={"health": health, "restart": RestartPolicy(max_failures=1)})
    async with running(world, profile) as (one,):
        world.watched[0].answer = "its answer was HTTP 503"
        if reason == "no_progress":
            world.tell(Unfit("no_progress"))
        async with asyncio.timeout(5):
            while not isinstance(one.state, Failed):
                await one.until_changed(NEVER)
        last = one.status().last_exit
        assert last is not None
        assert (last.reason, last.lines) == (reason, ("its last line", "draftd: its answer was HTTP 503"))


METAL = b"[METAL] Command buffer execution failed: (0:kIOGPUCommandBufferCallbackError%s)\n"


async def test_metal_out_of_memory_is_told_in_words_and_not_tried_again_at_once() -> None:
    world = World()
    patient = PROFILE.model_copy(update={"restart": RestartPolicy()})
    async with ready(world, patient) as one:
        world.children[0].on_output(METAL % b"OutOfMemory" + b"libc++abi: terminating\n")
        world.children[0].end(-6)
        await settle()
        last = one.status().last_exit
        assert last is not None
        assert (last.reason, str(last)[:19]) == ("gpu_memory", "gpu_memory (SIGABRT")
        assert last.lines[-1].startswith("draftd: the GPU ran out of memory: a smaller model")
        assert isinstance(one.state, Backoff)
        assert one.state.deadline - one.state.since >= patient.restart.max_delay


@pytest.mark.fault(162)
@pytest.mark.parametrize(
    ("counted", "code", "strained", "reason"),
    [(1, -9, False, "oom"), (0, -9, True, "exit"), (1, 1, True, "exit"), (None, -9, True, "oom")],
)
async def test_a_worker_that_the_system_killed_for_memory_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    counted: int | None,
    code: int,
    strained: bool,
    reason: str,
) -> None:
    counters = tmp_path / "vmstat"
    counters.write_text("nr_free_pages 7\noom_kill 41\n" if counted is not None else "")
    monkeypatch.setattr(kernel_kills, "COUNTERS", counters)
    world = World()
    async with ready(world, PROFILE) as one:
        if strained:
            world.services.room.feels(Pressure.WARNING)
        if counted is not None:
            counters.write_text(f"nr_free_pages 7\noom_kill {41 + counted}\n")
        world.children[0].end(code)
        await settle()
        last = one.status().last_exit
        assert last is not None
        assert last.reason == reason
        assert any("the system killed it because memory was short" in line for line in last.lines) == (
            reason == "oom"
        )
        assert ("restart", "a", reason) in world.log


async def test_a_kill_of_long_ago_is_no_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counters = tmp_path / "vmstat"
    counters.write_text("oom_kill 0\n")
    monkeypatch.setattr(kernel_kills, "COUNTERS", counters)
    kills = kernel_kills.KernelKills()
    counters.write_text("oom_kill 1\n")
    assert kills.has_grown()
    kills.refresh()
    assert kills.has_grown()
    kills.refresh()
    assert not kills.has_grown()


async def test_the_next_child_is_not_blamed_for_what_the_last_one_said() -> None:
    world = World()
    world.words = [METAL.decode()]  # the log still has it
    async with running(world, PROFILE) as (one,):
        world.children[0].end(1)
        await settle()
        last = one.status().last_exit
        assert last is not None
        assert last.reason == "exit"


async def test_a_worker_that_is_cancelled_leaves_no_child_and_keeps_neither_place_nor_port() -> None:
    world = World()
    with world.patched():
        one = Worker(PROFILE.model_copy(update={"port": 9000}), world.services)
        task = asyncio.create_task(one.run())
        one.post(Start())
        await settle()
        assert not world.gate.idle
        task.cancel()
        await asyncio.wait([task])
    assert world.children[0].heard == ["kill", "close"]
    assert world.gate.idle
    assert world.ports.take("another")[0] == 8000
    world.ports.reserve("a third", 9000)
    assert world.ports.take("a third")[0] == 9000


async def test_a_fixed_port_is_kept_for_the_worker_from_the_start_and_from_a_reload_on() -> None:
    world = World()
    Worker(PROFILE.model_copy(update={"port": 8000}), world.services)
    assert world.ports.take("another")[0] == 8001
    async with running(world, PROFILE.model_copy(update={"port": 8003})) as (one,):
        one.post(Reconfigure(PROFILE.model_copy(update={"port": 8002}), restart=False))
        await settle()
        assert [world.ports.take(name)[0] for name in "xy"] == [8004, 8005]
        assert one.profile.port == 8002
        assert len(world.children) == 1


async def test_the_holders_of_ports_that_were_skipped_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "holders_of", lambda port: f"held: {port}")
    world = World()
    world.busy = {8000, 8001}
    async with running(world) as (one,), asyncio.timeout(5):
        while not world.watched:  # noqa: ASYNC110 - who holds them is found out in a thread
            await asyncio.sleep(0.001)
        world.tell(BecameReady())
        await settle()
        assert one.status().notes == ("held: 8000", "held: 8001")
        assert one.status().port == 8002
        async with one.lease("a") as lease:
            assert lease.port == 8002


async def test_an_exit_is_told_with_its_code_its_reason_and_its_last_words() -> None:
    world = World()
    world.words = [f"line {n}" for n in range(20)]
    async with ready(world) as one:
        assert one.status().last_exit is None
        world.alive[0].end(7)
        await settle()
        last = one.status().last_exit
        assert last is not None
        assert (last.code, last.reason, last.lines) == (7, "exit", tuple(world.words[-8:]))
        world.tell(BecameReady())
        world.tell(Unfit("memory"))
        await settle()
        last = one.status().last_exit
        assert last is not None
        assert (last.code, last.reason) == (-9, "memory")


async def test_a_reason_for_which_nothing_follows_is_kept_too() -> None:
    world = World()
    async with ready(world) as one:
        one.post(Stop("operator"))
        await settle()
        last = one.status().last_exit
        assert last is not None
        assert last.reason == "operator"
        assert (one.status().pid, one.status().port, one.status().memory_bytes) == (None, None, None)


async def test_restarts_are_counted_with_their_reason_and_every_change_is_told() -> None:
    world = World()
    async with ready(world) as one:
        assert world.log.count(("change",)) == 3  # queued, starting, ready
        world.tell(HealthMissed())
        await settle()
        assert world.log.count(("change",)) == 3  # still ready
        world.alive[0].end()
        await settle()
        world.tell(BecameReady())
        one.post(Restart("operator"))
        await settle()
        assert [entry for entry in world.log if entry[0] == "restart"] == [
            ("restart", "a", "exit"),
            ("restart", "a", "operator"),
        ]
        assert one.status().restarts == 2


async def test_what_a_child_says_is_handed_on_under_the_workers_name() -> None:
    world = World()
    async with ready(world) as one:
        one.name = "b"  # as the supervisor does when the profiles are shared in another way
        world.alive[0].on_output(b"chunk")
        assert world.watched[0].output == len(b"chunk")
    assert ("output", "b", b"chunk") in world.log


async def test_what_an_earlier_child_or_its_monitor_said_is_void() -> None:
    world = World()
    async with ready(world) as one:
        said, child = world.tell, world.alive[0]
        child.exit_code = 1
        child.on_exit()
        said(HealthMissed())  # in the inbox behind the exit
        await settle()
        child.on_exit()
        said(BecameReady())
        await settle()
        assert isinstance(one.state, Starting)
        assert len(world.children) == 2


async def test_a_monitor_ends_with_its_child_and_sees_the_profile_of_the_day() -> None:
    world = World()
    async with ready(world) as one:
        (watched,) = world.watched
        assert (watched.pid, watched.port, watched.drain) == (1, 8000, NEVER)
        assert watched.usage.open == 0
        later = PROFILE.model_copy(update={"health": HealthPolicy(failures=9)})
        one.post(Reconfigure(later, restart=False))
        await settle()
        assert watched.profile() == later
        world.alive[0].end()
        await settle()
        assert [one.pid for one in world.watched] == [2]


async def test_memory_is_the_process_or_what_the_engine_says_if_that_is_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "footprint", lambda pid, family: 1000 * pid)
    world = World()
    async with ready(world) as one:
        (watched,) = world.watched
        assert one.status().memory_bytes == watched.memory() == 1000
        watched.told_memory = 5000
        assert one.status().memory_bytes == watched.memory() == 5000
        world.alive[0].end()
        await settle()
        assert one.status().memory_bytes == 2000  # the next child has said nothing yet


async def test_what_an_engine_says_is_about_its_own_child() -> None:
    world = World()
    async with ready(world) as one:
        assert not one.status().accounting
        assert one.watched is world.watched[0]
        one.watched.accounting = True
        assert one.status().accounting
        world.alive[0].end()
        await settle()
        assert not one.status().accounting


async def test_the_progress_of_an_answer_is_progress_of_the_child() -> None:
    world = World()
    async with ready(world) as one, one.lease("a") as lease:
        usage = world.watched[0].usage
        usage._progress = 0.0
        lease.progress()
        assert usage.silent_seconds() < 5


async def test_a_stop_for_lack_of_requests_is_dropped_if_one_has_come() -> None:
    world = World()
    async with ready(world) as one:
        async with one.lease("a"):
            world.tell(Stop(IDLE))
            await settle()
            assert states([one]) == ["Ready"]
        world.watched[0].usage._last = 0.0
        world.tell(Stop(IDLE))
        await settle()
        assert isinstance(one.state, Stopped)
        assert one.state.on_demand


async def test_how_long_a_start_took_is_known_when_it_is_over() -> None:
    world = World()
    async with running(world) as (one,):
        assert one.status().start_seconds is None
        world.tell(BecameReady())
        await settle()
        taken = one.status().start_seconds
        assert taken is not None
        assert 0 <= taken < 5


async def test_a_start_that_fails_says_why() -> None:
    world = World(spawns=False)
    profile = PROFILE.model_copy(update={"restart": RestartPolicy(max_failures=1)})
    async with running(world, profile) as (one,):
        last = one.status().last_exit
        assert last is not None
        assert last.code is None
        assert last.reason == "the worker could not be started: [Errno 2] no such file"
        with pytest.raises(WorkerError, match="could not be started"):
            async with one.lease("a"):
                pass


async def test_a_stop_that_comes_while_a_child_cannot_be_started_is_heard() -> None:
    world = World(spawns=False)
    async with running(world) as (one,):
        world.meanwhile = lambda: one.post(Stop())
        await settle()
        one.post(Start())
        await settle()
        assert states([one]) == ["Stopped"]
        assert world.gate.idle


async def test_a_child_is_asked_to_end_before_it_is_killed() -> None:
    world = World()
    async with ready(world) as one:
        one.post(Stop())
        await settle()
        assert world.children[0].heard[0] == "term"


async def test_a_request_wakes_a_worker_that_sleeps_and_waits_for_one_start_only() -> None:
    world = World()
    profile = PROFILE.model_copy(update={"restart": RestartPolicy(initial_delay=5, max_delay=5)})
    async with ready(world, profile) as one:
        world.watched[0].usage._last = 0.0
        world.tell(Stop(IDLE))
        await settle()
        assert world.alive == []
        waiting = asyncio.create_task(_lease(one))
        await settle()
        assert states([one]) == ["Starting"]
        world.alive[0].end()
        await settle()
        assert (states([one]), await waiting) == (["Backoff"], "refused")
        later = asyncio.create_task(_lease(one))  # has seen no start yet, and the delay is short
        await settle()
        assert not later.done()
        one.post(Start())
        await settle()
        world.tell(BecameReady())
        assert await later == "served"


async def _lease(one: Worker) -> str:
    try:
        async with one.lease("a"):
            return "served"
    except WorkerError:
        return "refused"


async def test_a_worker_that_was_never_started_has_a_status() -> None:
    status = Worker(PROFILE, World().services).status()
    assert (status.state, status.pid, status.notes, status.restarts) == ("asleep", None, (), 0)
    assert abs(status.since - time.time()) < 60


async def test_changes_are_logged_bad_ones_as_warnings() -> None:
    world = World()
    with capture_logs() as logs:
        async with ready(world, PROFILE.model_copy(update={"restart": RestartPolicy(max_failures=1)})):
            world.alive[0].end()
            await settle()
    told = [(entry["event"], entry["log_level"], entry["because"]) for entry in logs]
    assert told[:4] == [
        ("worker waiting", "debug", "Start"),  # it has its turn at once
        ("worker starting", "info", "LoadGranted"),
        ("worker ready", "info", "BecameReady"),
        ("worker failed", "warning", "exit"),
    ]


async def test_a_change_is_waited_for_no_longer_than_asked() -> None:
    world = World()
    async with ready(world) as one:
        async with asyncio.timeout(5):
            await one.until_changed(AT_ONCE)
            waiting = asyncio.create_task(one.until_changed(NEVER))
            await settle()
            assert not waiting.done()
            one.post(Stop())
            await waiting


async def test_the_state_is_told_with_the_time_since_when_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with ready(world) as one:
        since = one.status().since
        one.post(Stop())
        await settle()
        assert one.status().since > since
        assert one.status().state == "stopped"


# --- faults of our own --------------------------------------------------------------------------------------


def faulty(world: World, *parts: str) -> World:
    """A world in which these of the daemon's parts raise what nobody expects."""

    def fails(*_: object) -> Any:
        raise ZeroDivisionError(parts)

    changes: dict[str, Any] = dict.fromkeys(parts, fails)
    world.services = replace(world.services, **changes)
    return world


@pytest.mark.fault(56)
async def test_a_fault_in_what_a_worker_tells_is_logged_and_the_worker_goes_on() -> None:
    world = faulty(World(), "on_restart", "on_change", "tail")
    async with pretending(world) as one:
        world.tell(BecameReady())
        await settle()
        waiting = asyncio.create_task(_lease(one))
        await settle()
        assert waiting.done()
        world.alive[0].end()
        await settle()
        assert [
            state for state in states([one]) if state != "Starting"
        ] == []  # backoff, queue and spawn are over
        last = one.status().last_exit
        assert last is not None
        assert (last.code, last.lines) == (-9, ())
        world.tell(BecameReady())
        await settle()
        assert await _lease(one) == "served"
    assert all(isinstance(fault, ZeroDivisionError) for fault in world.faults)
    assert len(world.faults) > 5


@pytest.mark.fault(56)
async def test_an_event_that_cannot_happen_is_logged_and_changes_nothing() -> None:
    world = World()
    async with pretending(world) as one:
        world.tell(BecameReady())
        world.tell(BecameReady())
        await settle()
        assert states([one]) == ["Ready"]
        assert await _lease(one) == "served"
    assert [type(fault).__name__ for fault in world.faults] == ["IllegalTransitionError"]


@pytest.mark.fault(56)
@pytest.mark.parametrize("error", [ValueError("embedded null byte"), OSError(24, "Too many open files")])
async def test_a_child_that_cannot_be_started_is_a_failure_whatever_the_reason(error: Exception) -> None:
    world = World()

    def fails() -> None:
        raise error

    world.meanwhile = fails
    policy = PROFILE.model_copy(update={"restart": RestartPolicy(max_failures=1)})
    async with pretending(world, policy) as one:
        assert states([one]) == ["Failed"]
        assert str(error) in str(one.status().last_exit)
        assert world.gate.idle
        world.meanwhile = lambda: None
        one.post(Start())
        await settle()
        assert states([one]) == ["Starting"]
    assert world.faults == ([] if isinstance(error, OSError) else [error])


@asynccontextmanager
async def pretending(world: World, profile: Profile = PROFILE) -> AsyncIterator[Worker]:
    """One started worker, whatever its faults."""
    with world.patched():
        async with asyncio.TaskGroup() as tasks:
            one = Worker(profile, world.services)
            tasks.create_task(one.run())
            one.post(Start())
            await settle()
            yield one
            one.post(Close(0.0))


@pytest.mark.fault(102)
async def test_workers_share_the_memory_and_what_an_ended_one_had_is_told_to_who_had_too_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(first_start, "weights_here", lambda profile, environ: 5 * 10**9)
    world = World(loads=3)  # its workers may take 10 GB
    foreign = PROFILE.model_copy(update={"name": "c", "command": ("server", "{port}")})
    profiles = (PROFILE, PROFILE.model_copy(update={"name": "b"}), foreign)
    async with running(world, *profiles) as workers:
        first, second, third = world.children
        [had] = first.shares
        [has] = second.shares
        assert had.wired > 5 * 10**9
        assert had.wired + has.wired == 10 * 10**9
        assert third.shares == []
        workers[0].post(Stop())
        await settle()
        assert second.shares[1:] == [had]
        workers[1].post(Stop())
        await settle()
        assert world.services.memory.left == 10 * 10**9
