"""A Mac is kept awake while there is work. A script of that name plays `caffeinate`."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from draftd import app
from draftd.workers import wakefulness
from draftd.workers.wakefulness import keep_awake
from tests.harness import LIMIT, alive, fake, serving, until_gone

# As macOS's own does with -w, it ends when the process that it is told of has ended.
CAFFEINATE = """#!{python}
import os, pathlib, sys, time
heard = pathlib.Path({folder!r})
(heard / "new").write_text(f"{{os.getpid()}} {{' '.join(sys.argv[1:])}}")
(heard / "new").rename(heard / f"held {{os.getpid()}}")
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(0.02)
"""
OFTEN = 0.01  # seconds

Held = Callable[[], list[int]]


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Held:
    """The processes that hold an assertion now, and have had the time to say so."""
    script = tmp_path / "bin" / "caffeinate"
    script.parent.mkdir()
    script.write_text(CAFFEINATE.format(python=sys.executable, folder=str(tmp_path)))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))

    def now() -> list[int]:
        said = [file.read_text().split(" ", 1) for file in tmp_path.glob("held *")]
        assert {words for _, words in said} <= {f"-i -w {os.getpid()}"}
        return [int(pid) for pid, _ in said if alive(int(pid))]

    return now


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not is_so():  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(OFTEN)


@asynccontextmanager
async def keeping(is_busy: Callable[[], bool], linger: float = 0.0) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(keep_awake(is_busy, OFTEN, linger))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.fault(105)
async def test_the_machine_is_kept_awake_while_there_is_work_and_once_more_with_the_next(held: Held) -> None:
    busy = True
    async with keeping(lambda: busy):
        await until(lambda: len(held()) == 1)
        [first] = held()
        busy = False
        await until(lambda: not held())
        busy = True
        await until(lambda: len(held()) == 1)
        [second] = held()
        os.kill(second, signal.SIGKILL)
        await until(lambda: held() not in ([], [second]))
        assert first not in held()
    assert held() == []


async def test_between_two_requests_it_stays_awake(held: Held) -> None:
    busy = True
    async with keeping(lambda: busy, linger=1000.0):
        await until(lambda: len(held()) == 1)
        [first] = held()
        busy = False
        await asyncio.sleep(10 * OFTEN)
        busy = True
        await asyncio.sleep(10 * OFTEN)
        assert held() == [first]


async def test_a_machine_without_caffeinate_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with capture_logs() as logs:
        async with keeping(lambda: True) as task, asyncio.timeout(LIMIT):
            await task
    assert [entry["reason"] for entry in logs] == ["caffeinate: No such file or directory"]


@pytest.mark.fault(208)
async def test_a_caffeinate_that_does_not_listen_holds_up_nobody(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakefulness, "MAX_END", 0.01)
    async with asyncio.timeout(LIMIT):
        async with keeping(lambda: True):
            await until(lambda: len(held()) == 1)
            os.kill(held()[0], signal.SIGSTOP)  # then SIGTERM waits until somebody lets it go on
        assert held() == []


@pytest.mark.fault(208)
async def test_where_descriptors_were_short_the_machine_is_kept_awake_later(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = wakefulness._hold
    tries: list[int] = []

    async def refused_at_first() -> asyncio.subprocess.Process:
        tries.append(len(tries))
        if len(tries) < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return await hold()

    monkeypatch.setattr(wakefulness, "_hold", refused_at_first)
    with capture_logs() as logs:
        async with keeping(lambda: True):
            await until(lambda: len(held()) == 1)
    assert [entry["reason"] for entry in logs] == ["caffeinate: Too many open files"]


@pytest.mark.fault(105)
async def test_nothing_is_left_behind_by_a_daemon_that_is_killed(held: Held, tmp_path: Path) -> None:
    code = "import asyncio; from draftd.workers.wakefulness import keep_awake; "
    code += "asyncio.run(keep_awake(lambda: True))"
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    said: list[str] = []

    def has_said() -> bool:
        said[:] = [file.read_text() for file in tmp_path.glob("held *")]
        return bool(said)

    await until(has_said)
    pid, words = said[0].split(" ", 1)
    assert words == f"-i -w {daemon.pid}"
    assert alive(int(pid))
    daemon.kill()
    await daemon.wait()
    await until_gone(int(pid))


@pytest.mark.one_in(3)
@pytest.mark.fault(105)
@pytest.mark.parametrize(
    ("mac", "keeps", "loading"), [(True, True, True), (True, False, False), (False, True, False)]
)
async def test_a_daemon_on_a_mac_keeps_it_awake_while_models_load_or_requests_are_open(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held: Held,
    mac: bool,
    keeps: bool,
    loading: bool,
) -> None:
    if not mac:
        monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(app, "keep_awake", lambda is_busy: keep_awake(is_busy, look=OFTEN, linger=0.0))
    async with serving(tmp_path, {"a": fake("--load", "0.5")}, ready=False, keep_awake=keeps) as served:
        if loading:
            await until(lambda: len(held()) == 1)
        await served.until_state("a", "ready")
        await until(lambda: not held())
        if loading:
            asking = asyncio.create_task(served.ask("a", "[[slow 0.1]]", stream=True))
            await until(lambda: len(held()) == 1)
            await asking
            await until(lambda: not held())
    assert held() == []
