"""The log of one worker: a ring of lines in memory, for the status page and for followers, and a rotated file.

A WorkerLog belongs to one event loop. Its file is written by plain synchronous appends, at most one pipe read
(64 KiB) at a time and never synced: that is a copy into the page cache, some microseconds. A thread would need a
queue with a bound, and could put lines out of order.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec

from draftd.telemetry.chatter import is_chatter
from draftd.telemetry.lines import escape
from draftd.telemetry.rotating_file import RotatedFile

RETRY_SECONDS = 5.0  # a full disk is not tried again with every line


class LogLine(msgspec.Struct, frozen=True):
    """One line. `seq` counts from 0 for each WorkerLog; `time` is in seconds since the epoch, for people.

    `worker` says whose it is, in a log of several; `chatter` that it is for machines.
    """

    seq: int
    time: float
    text: str
    worker: str = ""
    chatter: bool = False


class WorkerLog:
    """The last `ring_lines` lines in memory and, with a `path`, all of them in that file and its backups.

    The file is `path`, then `path.1` and so on up to `backups`, of `max_bytes` each. No error of the file is ever
    raised: `on_error` is called once for each failed attempt, what cannot be written is counted and told in the
    file when it works again, and the next attempt is made no sooner than 5 s later. `clock` is monotonic seconds,
    `wall` seconds since the epoch. Raises ValueError if `ring_lines` is not positive.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        ring_lines: int = 1000,
        max_bytes: int = 10 * 1024 * 1024,
        backups: int = 3,
        on_error: Callable[[OSError], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if ring_lines < 1:
            raise ValueError(f"ring_lines must be at least 1, not {ring_lines}")
        self._ring: deque[LogLine] = deque(maxlen=ring_lines)
        self._next = 0
        self._file = RotatedFile(path, max_bytes=max_bytes, backups=backups) if path else None
        self._on_error = on_error
        self._clock = clock
        self._wall = wall
        self._retry_at: float | None = None
        self._missing = 0
        self._reason = ""
        self._closed = False
        self._news = asyncio.Event()

    def write(
        self, lines: Iterable[str], worker: str = "", is_chatter: Callable[[str], bool] = is_chatter
    ) -> None:
        """Keep `lines`, all with the present time. Never raises. After `close` they go to the ring only."""
        now = self._wall()
        new = [
            LogLine(seq, now, escape(text), worker, is_chatter(text))
            for seq, text in enumerate(lines, self._next)
        ]
        if not new:
            return
        self._next += len(new)
        self._ring.extend(new)
        self._wake()
        self._to_file(new)

    def tail(self, n: int) -> list[LogLine]:
        """The last `n` lines at most, oldest first."""
        return list(islice(self._ring, max(0, len(self._ring) - n), None))

    @property
    def last(self) -> int:
        """The `seq` of the newest line; -1 if there is none."""
        return self._next - 1

    def select(self, n: int, *, raw: bool, since: float = 0.0) -> list[LogLine]:
        """The last `n` lines from `since` on (epoch seconds), oldest first; without `raw` those for people."""
        fitting = (line for line in reversed(self._ring) if line.time >= since and (raw or not line.chatter))
        return list(islice(fitting, n))[::-1]

    async def follow(self, after: int = -1) -> AsyncGenerator[LogLine, None]:
        """The kept lines with a `seq` above `after`, then new ones as they come; ends after `close`.

        -1, or a `seq` that this log has not reached (of an earlier daemon), starts with the oldest kept line. A
        follower that is slower than the worker holds nothing up: it gets "… N lines skipped" in the place of the
        lines that have left the ring, with the `seq` of the last of them.
        """
        oldest = self._next - len(self._ring)
        at = after if 0 <= after < self._next else oldest - 1
        while True:
            # Taken before looking: a write between the look and the wait sets this event, so none is missed.
            news = self._news
            lines = list(islice(self._ring, max(0, len(self._ring) - (self._next - 1 - at)), None))
            if lines and (skipped := lines[0].seq - at - 1):
                yield LogLine(lines[0].seq - 1, lines[0].time, f"… {skipped} lines skipped")
            for line in lines:
                yield line
                at = line.seq
            if not lines:
                if self._closed:
                    return
                await news.wait()

    def close(self) -> None:
        """Close the file. Followers get what is kept, and end."""
        self._closed = True
        if self._file:
            self._file.close()
        self._wake()

    def _wake(self) -> None:
        # A new event for each piece of news: no list of followers, so one that is dropped leaves nothing behind.
        self._news.set()
        self._news = asyncio.Event()

    def _to_file(self, lines: list[LogLine]) -> None:
        if self._file is None or self._closed:
            return
        if self._retry_at is not None and self._clock() < self._retry_at:
            self._missing += len(lines)
            return
        try:
            self._file.write(self._encoded(lines))
        except OSError as error:
            self._retry_at = self._clock() + RETRY_SECONDS
            self._missing += len(lines)
            self._reason = error.strerror or type(error).__name__
            self._on_error(error)
        else:
            self._retry_at, self._missing = None, 0

    def _encoded(self, lines: list[LogLine]) -> Iterable[bytes]:
        stamp = datetime.fromtimestamp(lines[0].time, UTC).isoformat(timespec="milliseconds")
        stamp = stamp.replace("+00:00", "Z")
        if self._missing:
            yield f"{stamp} … up to {self._missing} lines are missing here: {self._reason}\n".encode()
        for line in lines:
            yield f"{stamp} {line.text}\n".encode()
