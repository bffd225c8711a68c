"""WorkerLog: the ring, the file, a full disk, and followers."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from draftd.telemetry.worker_log import LogLine, WorkerLog

WALL = 1_795_428_000.25  # 2026-11-23T10:00:00.250Z
STAMP = "2026-11-23T10:00:00.250Z"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A WorkerLog with its clock in hand and its errors kept."""

    def __init__(self, path: Path | None = None, ring_lines: int = 5) -> None:
        self.clock = Clock()
        self.errors: list[int | None] = []
        self.log = WorkerLog(
            path,
            ring_lines=ring_lines,
            on_error=lambda error: self.errors.append(error.errno),
            clock=self.clock,
            wall=lambda: WALL,
        )


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text for line in lines]


async def take(lines: AsyncIterator[LogLine], count: int) -> list[str]:
    async with asyncio.timeout(5):
        return [(await anext(lines)).text for _ in range(count)]


async def rest(lines: AsyncIterator[LogLine]) -> list[str]:
    async with asyncio.timeout(5):
        return [line.text async for line in lines]


def test_tail_is_the_end_of_the_ring() -> None:
    log = Bench().log
    log.write("abc")
    assert log.tail(2) == [LogLine(1, WALL, "b"), LogLine(2, WALL, "c")]
    log.write("defg")
    assert texts(log.tail(100)) == list("cdefg")
    assert log.tail(0) == log.tail(-1) == []
    assert log.tail(1)[0].seq == 6


def test_the_ring_holds_something() -> None:
    with pytest.raises(ValueError, match="ring_lines"):
        Bench(ring_lines=0)


def test_the_file_has_every_line_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "fast.log"
    log = Bench(path).log
    log.write(["one", "two"])
    log.write([])
    log.write(["a line\nthat is two \x1b[2J \udcff"])
    log.close()
    assert path.read_text() == f"{STAMP} one\n{STAMP} two\n{STAMP} a line\\x0athat is two \\x1b[2J \\xff\n"
    assert texts(log.tail(1)) == ["a line\\x0athat is two \\x1b[2J \\xff"]


def test_the_file_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "fast.log"
    log = WorkerLog(path, max_bytes=60, backups=1, on_error=lambda error: pytest.fail(str(error)))
    for number in range(7):
        log.write([f"line {number}"])
    log.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fast.log", "fast.log.1"]
    assert [line[-6:] for line in path.read_text().splitlines()] == ["line 6"]


def test_a_full_disk_is_told_and_the_ring_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    bench = Bench(tmp_path / "fast.log")
    bench.log.write(["a"])
    monkeypatch.undo()
    assert bench.errors == [errno.ENOSPC]
    assert texts(bench.log.tail(5)) == ["a"]


def test_a_failing_file_is_tried_again_after_five_seconds(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.write_text("a file where the folder should be")
    bench = Bench(folder / "fast.log")
    for seconds in (0.0, 0.1, 4.9):
        bench.clock.now = seconds
        bench.log.write(["lost"])
    assert len(bench.errors) == 1
    bench.clock.now = 5.0
    bench.log.write(["lost", "lost"])
    assert bench.errors == [errno.EEXIST] * 2
    folder.unlink()
    bench.clock.now = 9.9
    bench.log.write(["lost"])
    assert not folder.exists()
    bench.clock.now = 10.0
    bench.log.write(["back"])
    bench.log.write(["again"])
    bench.log.close()
    assert (folder / "fast.log").read_text() == (
        f"{STAMP} … up to 6 lines are missing here: File exists\n{STAMP} back\n{STAMP} again\n"
    )
    assert len(bench.errors) == 2


def test_after_close_only_the_ring_is_written(tmp_path: Path) -> None:
    path = tmp_path / "fast.log"
    bench = Bench(path)
    bench.log.close()
    bench.log.write(["late"])
    assert not path.exists()
    assert texts(bench.log.tail(1)) == ["late"]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (-1, ["2", "3", "4", "5", "6"]),
        (4, ["5", "6"]),
        (1, ["2", "3", "4", "5", "6"]),
        (0, ["… 1 lines skipped", "2", "3", "4", "5", "6"]),
        (6, []),
        (7, ["2", "3", "4", "5", "6"]),  # from an earlier daemon
    ],
)
async def test_follow_starts_where_it_is_told(after: int, expected: list[str]) -> None:
    log = Bench().log
    log.write(map(str, range(7)))
    log.close()
    assert await rest(log.follow(after)) == expected


async def test_a_follower_that_waits_is_woken() -> None:
    log = Bench().log
    async with aclosing(log.follow()) as lines, asyncio.TaskGroup() as group:
        waiting = group.create_task(take(lines, 2))
        await asyncio.sleep(0)  # one turn of the loop: the follower now waits on an empty log
        log.write(["a"])
        log.write(["b"])
        assert await waiting == ["a", "b"]


async def test_no_wake_up_is_lost_at_any_point() -> None:
    """A write at each turn of the loop, whatever the follower is doing then."""
    log = Bench(ring_lines=1000).log

    async def produce() -> None:
        for number in range(200):
            log.write([str(number)])
            for _ in range(number % 4):
                await asyncio.sleep(0)
        log.close()

    async with asyncio.TaskGroup() as group:
        followers = [group.create_task(rest(log.follow())) for _ in range(3)]
        group.create_task(produce())
    assert [task.result() for task in followers] == [[str(number) for number in range(200)]] * 3


async def test_a_slow_follower_sees_the_gap_and_holds_nothing_up() -> None:
    log = Bench().log
    log.write(["0", "1"])
    async with aclosing(log.follow()) as lines:
        assert await take(lines, 1) == ["0"]
        log.write(map(str, range(2, 20)))
        assert await take(lines, 1) == ["1"]  # was taken from the ring together with 0
        gap = await anext(lines)
        assert gap == LogLine(14, WALL, "… 13 lines skipped")
        assert await take(lines, 5) == ["15", "16", "17", "18", "19"]
    assert await take(log.follow(gap.seq), 1) == ["15"]


async def test_a_follower_of_an_empty_log_sees_the_first_gap_too() -> None:
    log = Bench().log
    async with aclosing(log.follow()) as lines, asyncio.TaskGroup() as group:
        waiting = group.create_task(take(lines, 1))
        await asyncio.sleep(0)
        log.write(map(str, range(7)))
        assert await waiting == ["… 2 lines skipped"]


async def test_close_ends_followers_after_the_last_line() -> None:
    log = Bench().log
    async with asyncio.TaskGroup() as group:
        task = group.create_task(rest(log.follow()))
        await asyncio.sleep(0)
        log.write(["last words"])
        log.close()
    assert task.result() == ["last words"]


async def test_a_follower_can_be_cancelled() -> None:
    log = Bench().log
    task = asyncio.ensure_future(rest(log.follow()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    log.write(["goes on"])
