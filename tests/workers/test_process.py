"""A child's output, its exit, and its end, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from draftd.workers import process
from draftd.workers.process import EOF_GRACE, PIECE, Child
from tests.harness import alive, until_gone


@pytest.fixture(autouse=True)
async def no_child_left() -> AsyncIterator[None]:
    """A test that fails leaves its child behind, and the loop would wait for it for ever."""
    before = set(psutil.Process().children())
    yield
    for child in set(psutil.Process().children()) - before:
        child.kill()


class Heard:
    """A child, and what it wrote until it ended."""

    def __init__(self) -> None:
        self.output = b""
        self.ends = 0
        self.ended = asyncio.Event()
        self.said = asyncio.Event()

    def take(self, chunk: bytes) -> None:
        self.output += chunk
        self.said.set()

    async def start(self, code: str) -> Child:
        return await Child.spawn(
            [sys.executable, "-c", code], os.environ, on_output=self.take, on_exit=self.end
        )

    def end(self) -> None:
        self.ends += 1
        self.ended.set()


class Slow(Heard):
    """Handles a piece so slowly that reading the pipe pauses after each."""

    def take(self, chunk: bytes) -> None:
        time.sleep(0.006)
        super().take(chunk)


async def test_the_exit_comes_after_the_last_words_with_the_code() -> None:
    heard = Heard()
    child = await heard.start("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    async with asyncio.timeout(10):
        await heard.ended.wait()
    child.close()
    assert sorted(heard.output.split()) == [b"err", b"out"]
    assert child.exit_code == 7


async def test_a_signal_is_a_negative_code() -> None:
    heard = Heard()
    child = await heard.start("print('up', flush=True); import signal; signal.pause()")
    async with asyncio.timeout(10):
        await heard.said.wait()
        child.terminate()
        await heard.ended.wait()
    child.close()
    assert child.exit_code == -signal.SIGTERM


async def test_the_exit_is_known_though_a_grandchild_holds_the_output() -> None:
    heard = Heard()
    child = await heard.start(
        "import os, subprocess, sys;"
        "held = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
        "print(held.pid, flush=True); os.read(0, 1); os.kill(os.getpid(), 9)"
    )
    async with asyncio.timeout(10):
        await heard.ended.wait()
        grandchild = int(heard.output)
        assert alive(grandchild)
        child.kill_group()
        child.close()
        await until_gone(grandchild)


async def test_a_stopped_child_hears_sigterm() -> None:
    heard = Heard()
    child = await heard.start("print('up', flush=True); import signal; signal.pause()")
    async with asyncio.timeout(10):
        await heard.said.wait()
        os.kill(child.pid, signal.SIGSTOP)
        while psutil.Process(child.pid).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110 - the system does not tell
            await asyncio.sleep(0.001)
        child.terminate()
        await heard.ended.wait()
    child.close()
    assert child.exit_code == -signal.SIGTERM


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])  # no process, zombies only on macOS
async def test_a_group_of_which_nothing_lives_is_no_trouble(
    error: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killpg(group: int, number: int) -> None:
        raise error

    heard = Heard()
    child = await heard.start("pass")
    await heard.ended.wait()
    monkeypatch.setattr(os, "killpg", killpg)
    child.terminate()
    child.kill_group()
    child.close()


@pytest.mark.fault(202)
@pytest.mark.parametrize("stranger", [False, True], ids=["nobody has its number", "a stranger has"])
async def test_a_group_whose_number_was_given_to_a_stranger_is_left_alone(
    stranger: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled: list[tuple[int, int]] = []
    heard = Heard()
    child = await heard.start("import os; os.read(0, 1)")
    await heard.ended.wait()
    monkeypatch.setattr(os, "killpg", lambda *given: signalled.append(given))
    monkeypatch.setattr(psutil, "pid_exists", lambda _pid: stranger)
    child.kill_group()
    child.close()
    assert signalled == ([] if stranger else [(child.pid, signal.SIGKILL)])


@pytest.mark.fault(202)
def test_a_child_that_was_never_started_does_not_end_us(monkeypatch: pytest.MonkeyPatch) -> None:
    signalled: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda *given: signalled.append(given))
    child = Child(lambda _: None, lambda: None)
    child.terminate()
    child.kill_group()
    assert signalled == []


@pytest.mark.alone
async def test_the_exit_is_told_within_a_tenth_of_a_second() -> None:
    heard = Heard()
    child = await heard.start("print('up', flush=True); import signal; signal.pause()")
    async with asyncio.timeout(10):
        await heard.said.wait()
        began = time.monotonic()
        os.kill(child.pid, signal.SIGKILL)
        await heard.ended.wait()
    child.close()
    assert time.monotonic() - began < 0.1
    assert EOF_GRACE < 0.1


async def test_only_the_daemon_holds_the_write_end_of_a_lifeline() -> None:
    """A second child must not keep the first one's lifeline open when the daemon is gone."""
    ended = "import os; fd = int(os.environ['DRAFTD_LIFELINE_FD']); os.read(fd, 1); print('eof', flush=True)"
    heard, other = Heard(), Heard()
    first = await heard.start(ended)
    second = await other.start("print('up', flush=True); import signal; signal.pause()")
    async with asyncio.timeout(10):
        await other.said.wait()
        assert first._lifeline is not None
        os.close(first._lifeline)
        first._lifeline = None
        await heard.ended.wait()
        assert heard.output == b"eof\n"
        second.kill_group()
        await other.ended.wait()
    first.close()
    second.close()


async def test_a_child_that_cannot_be_started_leaves_no_descriptor() -> None:
    await _run_one()  # the loop opens some of its own for its first child
    before = psutil.Process().num_fds()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            await Child.spawn(["/no/such/program"], {}, on_output=lambda _: None, on_exit=lambda: None)
    await _until_open(before)


async def _until_open(count: int) -> None:
    """Return when that many descriptors are open; the loop closes released ones in its next turns."""
    async with asyncio.timeout(10):
        while psutil.Process().num_fds() != count:  # noqa: ASYNC110 - one turn of the loop
            await asyncio.sleep(0)


async def test_an_ended_child_leaves_no_descriptor() -> None:
    await _run_one()
    before = psutil.Process().num_fds()
    for _ in range(3):
        await _run_one()
    await _until_open(before)


async def _run_one() -> None:
    heard = Heard()
    child = await heard.start("print('x')")
    async with asyncio.timeout(10):
        await heard.ended.wait()
    child.close()
    child.close()


# --- a flood --------------------------------------------------------------------------------------------------

FLOOD = "import os\nwhile True: os.write(1, b'x\\n' * 32768)"


@pytest.mark.one_in(2)
@pytest.mark.fault(58)
@pytest.mark.parametrize("floods", [3, 1])
async def test_children_that_flood_their_output_leave_the_loop_to_others(floods: int) -> None:
    """Counted in pieces and turns of the loop: a busy machine makes them longer, but not more."""
    pieces: list[int] = []
    heard: list[float] = []  # when each came

    def take(chunk: bytes) -> None:
        pieces.append(len(chunk))
        heard.append(time.monotonic())
        time.sleep(0.01)  # as long as it takes to make lines of it on a slow machine

    ended = [asyncio.Event() for _ in range(floods)]
    children = [
        await Child.spawn([sys.executable, "-c", FLOOD], os.environ, on_output=take, on_exit=each.set)
        for each in ended
    ]
    turns: list[int] = []
    first, last = 10 * floods, 10 * floods + 40  # when all of them have begun
    async with asyncio.timeout(20):
        while len(pieces) <= last:
            before = len(pieces)
            await asyncio.sleep(0)
            turns.append(len(pieces) - before)
        for child, each in zip(children, ended, strict=True):
            child.kill_group()
            await each.wait()
            child.close()
    assert max(pieces[: last + 1]) <= PIECE
    assert max(turns) <= floods
    assert 40 * 0.01 / (heard[last] - heard[first]) < 0.7  # of the loop's time


async def test_nothing_of_a_flood_is_lost_and_its_end_is_there_with_the_exit() -> None:
    heard = Heard()
    child = await heard.start(
        "import sys; sys.stdout.write('x\\n' * 500_000 + 'the end'); sys.stdout.flush()"
    )
    async with asyncio.timeout(10):
        await heard.ended.wait()
    child.close()
    assert heard.output == b"x\n" * 500_000 + b"the end"


async def test_after_a_rest_the_pipe_is_read_on() -> None:
    heard = Slow()
    child = await heard.start("import os, signal; os.write(1, b'x' * 300_000); signal.pause()")
    async with asyncio.timeout(10):
        while len(heard.output) < 300_000:  # noqa: ASYNC110 - a piece at a time
            await asyncio.sleep(0.01)
        child.kill_group()
        await heard.ended.wait()
    child.close()


async def test_what_was_said_before_an_exit_is_heard_before_it_though_a_rest_was_due() -> None:
    heard = Slow()
    child = await heard.start("import os; os.write(1, b'x' * 100_000 + b'the end')")
    async with asyncio.timeout(10):
        await heard.ended.wait()
    assert heard.output.endswith(b"the end")
    assert len(heard.output) == 100_007
    child.close()
    await asyncio.sleep(2 * EOF_GRACE)
    assert heard.ends == 1


async def test_a_child_that_is_let_go_while_its_pipe_rests_troubles_nobody() -> None:
    wrong: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    heard = Slow()
    child = await heard.start(FLOOD)
    async with asyncio.timeout(10):
        await heard.said.wait()
        child.kill_group()
        child.close()
        await until_gone(child.pid)
    await asyncio.sleep(0.1)  # its timers
    assert wrong == []


# --- the folder -----------------------------------------------------------------------------------------------

WHERE = "import os; print(os.getcwd())"


async def _where() -> str:
    heard = Heard()
    child = await heard.start(WHERE)
    async with asyncio.timeout(10):
        await heard.ended.wait()
    child.close()
    return heard.output.decode().strip()


@pytest.mark.fault(54)
async def test_a_child_starts_where_the_daemon_was_started_or_in_a_folder_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, home = tmp_path / "started", tmp_path / "home"
    folder.mkdir()
    monkeypatch.setattr(process, "STARTED_IN", str(folder))
    monkeypatch.chdir(folder)
    assert await _where() == str(folder)
    folder.rmdir()
    assert await _where() == "/"  # there is no home either
    home.mkdir()
    assert await _where() == str(home)
    folder.mkdir()
    assert await _where() == str(folder)


def test_a_daemon_that_is_started_in_a_folder_that_is_gone_starts_its_children_elsewhere(
    tmp_path: Path,
) -> None:
    code = "import os; os.rmdir(os.getcwd()); from draftd.workers import process; print(process.STARTED_IN)"
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=gone, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "/"
