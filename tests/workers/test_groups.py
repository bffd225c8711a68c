"""A worker of several ranks, which are scripted: one worker to everybody else, and nobody is left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from draftd.profile_tables import HealthPolicy
from draftd.profiles import Profile
from draftd.workers import loading
from draftd.workers.status import RankStatus
from draftd.workers.usage import Usage
from draftd.workers.watched import Watched
from tests import fake_rank
from tests.harness import LIMIT, QUICK, Served, alive, chat, free_ports, serving, until_gone

Measured = Callable[[float], None]
HANGS = "[health]\ninterval = 0.1\ntimeout = 2.0\nfailures = 1\n"
ONCE = "[restart]\nmax_failures = 1\n"


@asynccontextmanager
async def group(
    tmp_path: Path, quirks: Any = None, *, ready: bool = True, **profile: str
) -> AsyncIterator[Served]:
    text = fake_rank.profile(tmp_path, quirks, **profile)
    async with serving(tmp_path, {"pair": text}, ready=ready, warm_spare=False) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A group for tests that leave one behind which serves."""
    async with group(tmp_path_factory.mktemp("group")) as served:
        yield served


@pytest.fixture
def over_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a profile's group says whose second machine is reached by a scripted ssh."""
    fake_rank.program(tmp_path / "path" / "ssh", fake_rank.SSH)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}")
    return fake_rank.hostfile(tmp_path, "mini")


async def pids(served: Served) -> list[int]:
    """The launcher's process and those of the ranks on this machine, once all are known."""
    async with asyncio.timeout(LIMIT):
        while not _all_known(served):  # noqa: ASYNC110 - the launcher tells of no change, but once a second
            await asyncio.sleep(0.02)
    row = served.row("pair")
    return [row["pid"], *(rank["pid"] for rank in row["ranks"])]


def _all_known(served: Served) -> bool:
    ranks = served.row("pair")["ranks"]
    return bool(ranks) and all(rank["memory_bytes"] for rank in ranks)


async def replaced(served: Served, before: list[int]) -> float:
    """Wait until another group serves, and none of the processes before is left; return the seconds it took."""
    started = time.monotonic()
    for pid in before:
        await until_gone(pid)
    await served.until(lambda: served.state("pair") == "ready" and served.row("pair")["pid"] not in before)
    seconds = time.monotonic() - started
    assert (await served.ask("pair")).status == 200
    return seconds


async def test_a_group_is_one_worker_to_everybody_else(tmp_path: Path) -> None:
    async with group(tmp_path, {0: {"memory": 5000}, 1: {"memory": 7000}}) as served:
        assert (await served.ask("pair")).json["choices"][0]["message"]["content"] == "ok"
        launcher, *ranks = await pids(served)
        row = served.row("pair")
        assert [(rank["rank"], rank["host"]) for rank in row["ranks"]] == [(0, ""), (1, "")]
        assert [rank["memory_bytes"] for rank in row["ranks"]] == [5000, 7000]
        assert [psutil.Process(pid).ppid() for pid in ranks] == [launcher, launcher]
        assert row["memory_bytes"] > sum(psutil.Process(pid).memory_info().rss for pid in ranks) / 2
        lines = [line.text for line in served.daemon.sink.log("pair").tail(50)]
        assert {"[rank 0] rank 0 is up", "[rank 1] rank 1 is up"} <= set(lines)
    assert not any(alive(pid) for pid in (launcher, *ranks))


@pytest.mark.fault(184)
async def test_ranks_meet_by_what_mpirun_gives_and_all_of_them_end_when_it_does(tmp_path: Path) -> None:
    fake_rank.program(tmp_path / "bin" / "mpirun", fake_rank.MPIRUN)
    async with group(tmp_path, group='ranks = 2\nbackend = "mpi"') as served:
        launcher, *ranks = before = await pids(served)
        lines = [line.text for line in served.daemon.sink.log("pair").tail(50)]
        for rank in (0, 1):
            [told] = [line for line in lines if line.startswith(f"[rank {rank}] go ")]
            assert f'"PMIX_RANK": "{rank}"' in told
            assert "BatchMode=yes" in told  # mpirun's own ssh asks nothing either
        [mpirun] = [one.pid for one in psutil.Process(launcher).children() if one.pid not in ranks]
        os.kill(mpirun, signal.SIGKILL)
        await replaced(served, [*before, mpirun])
        assert "mpirun has ended, so the group ends" in served.row("pair")["last_exit"]["lines"][-1]
        launcher, *ranks = await pids(served)
        [mpirun] = [one.pid for one in psutil.Process(launcher).children() if one.pid not in ranks]
    assert not any(alive(pid) for pid in (launcher, *ranks, mpirun))


@pytest.mark.fault(184)
async def test_why_mpirun_brings_nobody_together_is_told_in_its_words(tmp_path: Path) -> None:
    fake_rank.program(tmp_path / "bin" / "mpirun", fake_rank.NO_MPIRUN)
    mpi = {"group": 'ranks = 2\nbackend = "mpi"', "tables": ONCE}
    async with group(tmp_path, ready=False, **mpi) as served:
        await served.until_state("pair", "failed")
        told = "\n".join(served.row("pair")["last_exit"]["lines"])
        assert "mpirun ended with 1: the orted of mini could not be started" in told


@pytest.mark.fault(134)
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("which", [0, 2], ids=["launcher", "rank"])
async def test_whatever_of_a_group_is_killed_all_of_it_is_replaced(
    shared: Served, which: int, measured: Measured
) -> None:
    before = await pids(shared)
    os.kill(before[which], signal.SIGKILL)
    measured(await replaced(shared, before))
    assert shared.row("pair")["last_exit"]["code"] == -signal.SIGKILL


@pytest.mark.fault(135)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_rank_that_is_killed_in_mid_stream_ends_the_stream_with_an_error(shared: Served) -> None:
    before = await pids(shared)
    body = chat("hang", model="pair", stream=True)
    async with (
        asyncio.timeout(LIMIT),
        shared.http.post(f"{shared.url}/v1/chat/completions", json=body) as response,
    ):
        said = await response.content.readuntil(b'"ok"')
        os.kill(before[2], signal.SIGKILL)
        with suppress(aiohttp.ClientPayloadError):  # it is cut after the error
            async for chunk in response.content.iter_any():
                said += chunk
    assert b'"error"' in said
    await replaced(shared, before)


@pytest.mark.fault(136)
async def test_a_rank_that_hangs_is_named_and_the_group_replaced(tmp_path: Path, measured: Measured) -> None:
    async with group(tmp_path, tables=HANGS + QUICK) as served:
        before = await pids(served)
        os.kill(before[2], signal.SIGSTOP)
        measured(await replaced(served, before))
        last = served.row("pair")["last_exit"]
        assert last["reason"] == "unhealthy"
        assert any("rank 1 has been silent for" in line for line in last["lines"])


@pytest.mark.fault(137)
@pytest.mark.parametrize(
    ("silent", "told", "words"),
    [
        (9.0, 0.0, "rank 1 on mini has been silent for"),
        (0.0, 9.0, "the launcher of the ranks has been silent for"),
    ],
    ids=["rank", "launcher"],
)
async def test_a_rank_that_hangs_while_it_loads_ends_the_load(silent: float, told: float, words: str) -> None:
    profile = Profile(name="a", model="m", health=HealthPolicy(load_stall_timeout=5.0))
    child = Watched(0, lambda: profile, Usage(), 0.0, pid=os.getpid())
    child.ranks = RankStatus(0, "", 1, 10, 0.0), RankStatus(1, "mini", None, 10, silent)
    child.ranks_told = time.monotonic() - told
    async with asyncio.timeout(LIMIT):
        await loading._until_stuck(child, lambda event: None)
    assert re.fullmatch(f"{words} (9|[1-9][0-9]) s", child.answer)
    assert child.silent_rank(30.0) == ""


DAEMON = """
import asyncio, sys
from pathlib import Path
from draftd.app import run
from draftd.profile_files import load_dir
from draftd.settings import Settings
folder = Path(sys.argv[1])
settings = Settings(profiles=folder / "profiles", state_dir=folder / "state", port=int(sys.argv[2]),
                    base_port=int(sys.argv[2]) + 1, warm_spare=False)
async def beside(daemon):
    while not (row := daemon.workers()[0])["ranks"] or row["state"] != "ready":
        await asyncio.sleep(0.02)
    print(row["pid"], *(rank["pid"] for rank in row["ranks"]), file=sys.stderr, flush=True)
asyncio.run(run(settings, lambda: load_dir(settings.profiles_dir(), ()), beside))
"""


@pytest.mark.fault(138)
async def test_a_killed_daemon_leaves_no_rank_not_even_one_that_hangs(
    tmp_path: Path, measured: Measured
) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "pair.toml").write_text(fake_rank.profile(tmp_path))
    words = [sys.executable, "-c", DAEMON, str(tmp_path), str(free_ports(2))]
    daemon = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: ASYNC220 - it returns at once
    try:
        assert daemon.stderr is not None
        async with asyncio.timeout(LIMIT):
            line = await asyncio.to_thread(daemon.stderr.readline)
        pids = [int(pid) for pid in line.split()]
        assert len(pids) == 3
        os.kill(pids[2], signal.SIGSTOP)
    finally:
        daemon.kill()
        daemon.communicate()
    started = time.monotonic()
    for pid in pids:
        await until_gone(pid)
    measured(time.monotonic() - started)
    assert time.monotonic() - started < 5


@pytest.mark.fault(139)
async def test_a_machine_that_cannot_be_reached_is_told_with_the_words_of_ssh(
    tmp_path: Path, over_ssh: str
) -> None:
    down = fake_rank.hostfile(tmp_path, "down")
    async with group(tmp_path, group=down, tables=ONCE, ready=False) as served:
        await served.until_state("pair", "failed")
        lines = served.row("pair")["last_exit"]["lines"]
        assert any("rank 1 on down was lost" in line and "Connection refused" in line for line in lines)


async def test_ranks_on_other_machines_are_started_by_ssh_and_have_what_they_need(
    tmp_path: Path, over_ssh: str
) -> None:
    async with group(tmp_path, {1: {"memory": 2**40}}, group=over_ssh) as served:
        await pids(served)
        row = served.row("pair")
        assert [(rank["rank"], rank["host"]) for rank in row["ranks"]] == [(0, ""), (1, "mini")]
        assert row["ranks"][1]["pid"] is None
        async with asyncio.timeout(LIMIT):
            while (served.row("pair")["memory_bytes"] or 0) < 2**40:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        lines = [line.text for line in served.daemon.sink.log("pair").tail(50)]
        assert "[rank 1 on mini] rank 1 is up" in lines
        [went] = [line for line in lines if line.startswith("[rank 1 on mini] go ")]
        assert '"MLX_RANK": "1"' in went
        assert "MLX_HOSTFILE" in went
        assert served.state("pair") == "ready"  # a terabyte there takes no room here


@pytest.mark.one_in(3)
@pytest.mark.fault(140)
@pytest.mark.parametrize(
    ("quirk", "told"),
    [
        (
            {"versions": fake_rank.VERSIONS | {"mlx": "2"}},
            "rank 1 has mlx 2, and this machine draftd 1, mlx 1",
        ),
        ({"missing": ["/models/big"]}, "rank 1 has no /models/big: "),
        ({"busy": 1000}, "the ranks find no ports to talk to each other, at last 127.0.0.1:"),
    ],
    ids=["versions", "weights", "ports"],
)
async def test_ranks_that_do_not_fit_each_other_are_refused_before_they_load(
    tmp_path: Path, quirk: dict[str, Any], told: str
) -> None:
    async with group(tmp_path, {1: quirk}, tables=ONCE, ready=False) as served:
        await served.until_state("pair", "failed")
        lines = served.row("pair")["last_exit"]["lines"]
        assert any(told in line for line in lines), lines
        assert not any("go {" in line for line in lines)


@pytest.mark.fault(141)
async def test_ports_that_are_taken_are_left_to_who_has_them(tmp_path: Path) -> None:
    async with group(tmp_path, {1: {"busy": 3}}) as served:
        assert (await served.ask("pair")).status == 200


async def test_a_rank_that_ends_by_itself_ends_the_group_with_its_exit_code(tmp_path: Path) -> None:
    async with group(tmp_path, {1: {"exits": 70}}, tables=ONCE, ready=False) as served:
        await served.until_state("pair", "failed")
        last = served.row("pair")["last_exit"]
        assert last["code"] == 70
        assert any("rank 1 ended with exit code 70, so the group ends" in line for line in last["lines"])


@pytest.mark.thorough
async def test_another_hostfile_is_another_worker_and_the_same_one_is_not(
    tmp_path: Path, over_ssh: str
) -> None:
    async with group(tmp_path, group=over_ssh) as served:
        first, *_ = await pids(served)
        assert (await served.post("/api/reload")).status == 200
        assert served.row("pair")["pid"] == first
        fake_rank.hostfile(tmp_path, "mini", "mini")
        assert (await served.post("/api/reload")).status == 200
        await served.until(lambda: served.state("pair") == "ready" and served.row("pair")["pid"] != first)
