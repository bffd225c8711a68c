"""Why a worker's last child ended: its code, its reason, its last words, and what the system knows of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from draftd.errors import WorkerError
from draftd.pressure import Pressure
from draftd.profile_tables import HealthPolicy, RestartPolicy
from draftd.workers import kernel_kills
from draftd.workers.events import BecameReady, Stop, Unfit
from draftd.workers.states import Backoff, Failed
from tests.workers.pretended import NEVER, World, settle
from tests.workers.running import PROFILE, ready, running


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
