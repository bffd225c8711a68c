"""Starts with a warm spare: real processes that speak the engine's side of the protocol, but import no mlx."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from draftd.profiles import Profile
from draftd.workers import command, process, warm_spare
from draftd.workers.process import Child
from draftd.workers.resources import LoadGate
from draftd.workers.warm_spare import Decision, SpareChild, Starter, decide, flags_of
from tests.harness import alive, until_gone

LIMIT = 10.0
QUIT = "import signal, sys; print('flags', *sys.argv[1:], flush=True); signal.pause()"
SPARE = f"""
import os
from draftd.engine import channel, lifeline, spare
lifeline.hold(os.environ)
socket = int(os.environ["DRAFTD_CHANNEL_FD"])
channel.hold(os.environ)
os.write(socket, b'{{"event": "started"}}\\n')
print("imported", flush=True)
if os.environ["KIND"] != "slow":
    spare.until_taken(spare.take_stdin())
{QUIT}
"""
COLD = [sys.executable, "-c", QUIT]
FAST = {**os.environ, "KIND": "fast"}
SLOW = {**os.environ, "KIND": "slow"}  # a spare that never gets warm
FOREIGN = [sys.executable, "-c", QUIT + "  # foreign"]


class Started:
    """A child, and what it says."""

    def __init__(self) -> None:
        self.output = b""
        self.records: list[bytes] = []
        self.said = asyncio.Event()
        self.ended = asyncio.Event()
        self.child: Child

    def take(self, chunk: bytes) -> None:
        self.output += chunk
        if b"flags" in self.output and self.output.endswith(b"\n"):
            self.said.set()


class Bench:
    """A starter whose spares and cold starts are scripts."""

    def __init__(self) -> None:
        self.loads = LoadGate(1)
        self.changed = asyncio.Event()
        self.changes = 0
        self.starter = Starter(self.loads, self._change, quiet=0.0)
        self.started: list[Started] = []

    def _change(self) -> None:
        self.changes += 1
        self.changed.set()
        self.changed = asyncio.Event()

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not met():
                await self.changed.wait()

    def warm(self) -> int:
        """The pid of the spare, 0 if there is no warm one."""
        spare = self.starter.status()
        return spare.pid if spare and spare.warm else 0

    async def until_warm(self) -> int:
        await self.until(lambda: bool(self.warm()))
        return self.warm()

    async def start(
        self, *flags: str, argv: list[str] = COLD, env: Callable[[], Mapping[str, str]] = lambda: FAST
    ) -> Started:
        """Start a child as a worker with a load slot does, and wait until it says its flags."""
        started = Started()
        self.started.append(started)
        self.loads.acquire(started, lambda: None)
        async with asyncio.timeout(LIMIT):
            started.child = await self.starter.start(
                [*argv, *flags],
                env,
                on_output=started.take,
                on_record=started.records.append,
                on_exit=started.ended.set,
            )
            await started.said.wait()
        self.loads.release(started)
        return started

    async def close(self) -> None:
        for started in self.started:
            started.child.kill_group()
            async with asyncio.timeout(LIMIT):
                await started.ended.wait()
            started.child.close()


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(command, "ENGINE", COLD)
    monkeypatch.setattr(command, "SPARE", [sys.executable, "-c", SPARE])
    made = Bench()
    try:
        async with running(made.starter):
            yield made
    finally:
        await made.close()


@asynccontextmanager
async def running(starter: Starter) -> AsyncIterator[None]:
    task = asyncio.create_task(starter.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_the_second_start_takes_the_spare_that_the_first_one_left(bench: Bench) -> None:
    cold = await bench.start("--a", "1")
    spare = await bench.until_warm()
    taken = await bench.start("--b", "two words")
    assert cold.child.pid != taken.child.pid == spare
    assert taken.output == b"imported\nflags --b two words\n"  # what it said as a spare, too
    assert taken.records == [b'{"event": "started"}']
    assert taken.child.secret != cold.child.secret
    assert os.getpgid(spare) == os.getsid(spare) == spare
    assert await bench.until_warm() != spare
    os.kill(spare, signal.SIGKILL)
    async with asyncio.timeout(LIMIT):
        await taken.ended.wait()
    assert taken.child.exit_code == -signal.SIGKILL
    assert not cold.ended.is_set()


async def test_there_is_none_without_a_start_and_none_while_a_worker_loads(bench: Bench) -> None:
    assert bench.starter.status() is None
    bench.loads.acquire("another worker", lambda: None)
    for _ in range(2):
        await bench.start()
    bench.loads.release("another worker")
    bench.loads.acquire("one that comes at once", lambda: None)
    for _ in range(3):  # time enough
        await bench.start()
    assert bench.changes == 0
    bench.loads.release("one that comes at once")
    await bench.until_warm()


async def test_a_dead_spare_means_a_cold_start_and_another_spare(bench: Bench) -> None:
    await bench.start()
    spare = await bench.until_warm()
    os.kill(spare, signal.SIGKILL)  # and the loop has not heard of it yet
    started = await bench.start("--cold")
    assert started.output == b"flags --cold\n"
    assert await bench.until_warm() not in {spare, started.child.pid}


async def test_a_death_that_was_noticed_leaves_no_spare(bench: Bench) -> None:
    await bench.start()
    os.kill(await bench.until_warm(), signal.SIGKILL)
    with capture_logs() as logs:
        await bench.until(lambda: bench.starter.status() is None)
    assert [(entry["event"], entry["code"], entry["said"]) for entry in logs] == [
        ("the warm spare has died", -signal.SIGKILL, "imported\n")
    ]
    assert (await bench.start("--cold")).output == b"flags --cold\n"


async def test_spares_that_ended_leave_no_descriptor(bench: Bench) -> None:
    counts: list[int] = []
    for _ in range(3):
        await bench.start()
        spare = await bench.until_warm()
        counts.append(psutil.Process().num_fds())
        os.kill(spare, signal.SIGKILL)
        await bench.until(lambda: bench.starter.status() is None)
    own = counts[1] - counts[0]  # what the child of a start holds
    assert own == counts[2] - counts[1]
    assert own <= 3


async def test_a_spare_that_was_made_while_a_worker_began_to_load_is_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn = SpareChild.spawn
    made: list[SpareChild] = []

    async def meanwhile(env: Mapping[str, str]) -> SpareChild:
        made.append(await spawn(env))
        if len(made) == 1:
            bench.loads.acquire("a worker", lambda: None)
        return made[-1]

    monkeypatch.setattr(SpareChild, "spawn", meanwhile)
    await bench.start()
    async with asyncio.timeout(LIMIT):
        while not made:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.001)
        await made[0].over.wait()
    assert bench.starter.status() is None
    bench.loads.release("a worker")
    assert await bench.until_warm() == made[1].pid


@pytest.mark.fault(56)
async def test_a_fault_of_ours_costs_one_spare_and_not_the_next(bench: Bench) -> None:
    environments = iter([FAST, None])

    def environment() -> Mapping[str, str]:
        if (given := next(environments)) is None:
            raise ZeroDivisionError
        return given

    with capture_logs() as logs:
        await bench.start(env=environment)
        async with asyncio.timeout(LIMIT):
            while not logs:  # noqa: ASYNC110 - nobody tells of what was not made
                await asyncio.sleep(0.01)
    assert [entry["event"] for entry in logs] == ["a fault in draftd itself; it goes on"]
    await bench.start()
    assert await bench.until_warm()


async def test_a_spare_that_cannot_be_started_is_told_and_starts_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "SPARE", ["/no/such/program"])
    with capture_logs() as logs:
        await bench.start()
        async with asyncio.timeout(LIMIT):
            while not logs:  # noqa: ASYNC110 - nobody tells of what was not made
                await asyncio.sleep(0.01)
    assert [entry["event"] for entry in logs] == ["the warm spare could not be started"]
    assert (await bench.start("--cold")).output == b"flags --cold\n"


async def test_a_spare_that_does_not_answer_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_spare, "TAKE_LIMIT", 0.1)
    await bench.start()
    spare = await bench.until_warm()
    os.kill(spare, signal.SIGSTOP)
    assert (await bench.start("--cold")).output == b"flags --cold\n"
    await until_gone(spare)


async def test_another_environment_means_a_cold_start_and_the_next_spare_has_it(bench: Bench) -> None:
    await bench.start()
    spare = await bench.until_warm()
    other = [{**FAST, "HF_HUB_OFFLINE": "0"}, {**FAST, "HF_HUB_OFFLINE": "1"}]
    # Asked for the start, and again for the spare: by then the weights may be on this machine.
    assert (await bench.start("--cold", env=lambda: other.pop(0))).output == b"flags --cold\n"
    assert not alive(spare)
    spare = await bench.until_warm()
    assert other == []
    started = await bench.start(env=lambda: {**FAST, "HF_HUB_OFFLINE": "1"})
    assert started.child.pid == spare


async def test_a_foreign_command_leaves_the_spare_alone(bench: Bench) -> None:
    await bench.start()
    spare = await bench.until_warm()
    foreign = await bench.start(argv=FOREIGN)
    assert foreign.child.pid != spare == bench.warm()


@pytest.mark.parametrize("argv", [COLD, FOREIGN])
async def test_a_start_ends_a_spare_that_still_imports_and_another_is_made(
    bench: Bench, argv: list[str]
) -> None:
    await bench.start(env=lambda: SLOW)
    await bench.until(lambda: bench.starter.status() is not None)
    spare = bench.starter.status()
    assert spare is not None
    assert (await bench.start("--cold", argv=argv, env=lambda: SLOW)).output == b"flags --cold\n"
    await until_gone(spare.pid)
    await bench.until(lambda: bench.starter.status() not in (None, spare))


async def test_the_end_of_the_daemon_is_the_end_of_the_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ENGINE", COLD)
    monkeypatch.setattr(command, "SPARE", [sys.executable, "-c", SPARE])
    bench = Bench()
    async with running(bench.starter):
        await bench.start()
        spare = await bench.until_warm()
    assert not alive(spare)
    assert bench.starter.status() is None
    assert (await bench.start("--cold")).output == b"flags --cold\n"
    await bench.close()


# --- the rules ----------------------------------------------------------------------------------------------

ENGINE_LINE = [*command.ENGINE, "--model", "m"]
FOREIGN_LINE = [sys.executable, "-m", "draftd.engine.guardian", *ENGINE_LINE]


@pytest.mark.parametrize(
    ("argv", "same", "warm", "decision"),
    [
        (ENGINE_LINE, True, True, Decision.TAKE),
        (ENGINE_LINE, True, False, Decision.END),  # it would compete with the start
        (ENGINE_LINE, False, True, Decision.END),  # the next start will want what this one wants
        (FOREIGN_LINE, True, True, Decision.KEEP),
        (FOREIGN_LINE, False, True, Decision.KEEP),
        (FOREIGN_LINE, True, False, Decision.END),
    ],
)
def test_what_becomes_of_a_spare(argv: list[str], same: bool, warm: bool, decision: Decision) -> None:
    assert decide(argv, same=same, warm=warm) is decision


def test_a_spare_is_made_for_one_environment() -> None:
    spare = SpareChild({"HF_HUB_OFFLINE": "1"})
    assert spare.is_made_for({"HF_HUB_OFFLINE": "1"})
    for other in ({}, {"HF_HUB_OFFLINE": "0"}, {"HF_HUB_OFFLINE": "1", "MORE": ""}):
        assert not spare.is_made_for(other)


def test_a_spare_is_made_for_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "started"
    folder.mkdir()
    monkeypatch.setattr(process, "STARTED_IN", str(folder))
    spare = SpareChild({})
    assert spare.is_made_for({})
    kept = folder.rename(tmp_path / "elsewhere")
    assert not spare.is_made_for({})
    folder.mkdir()
    assert not spare.is_made_for({})
    folder.rmdir()
    kept.rename(folder)
    assert spare.is_made_for({})


def test_the_flags_are_those_of_the_engines_command_line() -> None:
    profile = Profile(name="a", model="target")
    assert flags_of(command.argv(profile, 8000)) == command.argv(profile, 8000)[3:]
    foreign = Profile(name="b", model="m", command=("server", "{port}"))
    assert flags_of(command.argv(foreign, 8000)) is None
    assert flags_of(command.SPARE) is None
