"""`python -m tests.engine.group.recovery [ROUNDS]`: how soon two real ranks are back, beside one process.

A daemon serves one small model twice, split over two ranks and whole. In each round, in turn, the one process, the
launcher of the ranks and each of them are killed, and the daemon is asked for a token at once. Then each is stopped
(SIGSTOP), as if it hung; at last the daemon is killed while a rank is stopped. Whatever is killed, all processes
that served before must be gone; exit code 1 if one is left. Wall times mean little on a machine that others use:
compare those of one run.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tests.engine.group.test_two_ranks import pair_of
from tests.soak.recovery import first_token
from tests.soak.running import Running, running

GROUP, ALONE = "two-ranks", "one-process"
# A window so short that each end counts as a single one; and little patience with one that hangs.
TABLES = "[restart]\nwindow = 0.5\n[health]\ninterval = 0.5\ntimeout = 1.0\n"
LIMIT = 120.0
GONE_WITHIN = 10.0  # seconds after a killed daemon

Seconds = dict[str, list[tuple[float, ...]]]


async def victims(daemon: Running) -> dict[str, tuple[str, psutil.Process, list[psutil.Process]]]:
    """What can be killed, by its name: its worker, its process, and all processes of that worker."""
    async with asyncio.timeout(LIMIT):
        while True:
            rows = {row["name"]: row for row in await daemon.rows()}
            ranks = rows[GROUP]["ranks"]
            if len(ranks) == 2 and all(row["state"] == "ready" for row in rows.values()):
                break
            await asyncio.sleep(0.1)
    alone, launcher = (psutil.Process(rows[name]["pid"]) for name in (ALONE, GROUP))
    members = [psutil.Process(rank["pid"]) for rank in ranks]
    group = [launcher, *members]
    return {
        "one process": (ALONE, alone, [alone]),
        "the launcher of two ranks": (GROUP, launcher, group),
        "rank 0 of two": (GROUP, members[0], group),
        "rank 1 of two": (GROUP, members[1], group),
    }


async def ended(daemon: Running, name: str, sent: signal.Signals) -> tuple[float, ...]:
    """Send a signal; return the seconds until that was noticed, another process was ready, a client had a token."""
    worker, victim, family = (await victims(daemon))[name]
    began = time.monotonic()
    victim.send_signal(sent)
    event = "worker backoff" if sent == signal.SIGKILL else "worker stopping"
    async with asyncio.timeout(LIMIT):
        noticed = await daemon.until(event, since=began, worker=worker)
        await first_token(daemon.http, daemon.url, worker)
    token = time.monotonic()
    ready = await daemon.until("worker ready", since=began, worker=worker)
    assert_gone(family, f"{name} got {sent.name}")
    return noticed.at - began, ready.at - began, token - began


def assert_gone(family: Sequence[psutil.Process], after: str) -> None:
    _, left = psutil.wait_procs(family, timeout=1)
    if left:
        raise SystemExit(f"after {after} there are left: {left}")


async def measure(rounds: int, folder: Path) -> tuple[Seconds, Seconds, float]:
    """The recoveries after SIGKILL and after SIGSTOP, by what was hit; the seconds until all was gone at last."""
    target, draft = pair_of("qwen2", folder)
    models = f'model = "{target}"\ndraft_model = "{draft}"\n'
    profiles = {GROUP: f"{models}{TABLES}[distributed]\nranks = 2\n", ALONE: f"{models}{TABLES}"}
    killed: Seconds = defaultdict(list)
    stopped: Seconds = defaultdict(list)
    async with running(folder, profiles, {"DRAFTD_SHARE_ENGINE": "false"}) as daemon:
        names = list(await victims(daemon))
        for number in range(rounds + 1):
            for name in names:
                seconds = await ended(daemon, name, signal.SIGKILL)
                killed[name] += [seconds] if number else []  # the first finds files that nobody has read
        for name in names:
            stopped[name].append(await ended(daemon, name, signal.SIGSTOP))
        family = [each for _, _, found in (await victims(daemon)).values() for each in found]
        family[-1].suspend()
        began = time.monotonic()
        daemon.process.kill()
        _, left = await asyncio.to_thread(psutil.wait_procs, family, GONE_WITHIN)
        gone = time.monotonic() - began
        if left:
            raise SystemExit(f"the killed daemon has left {left}")
    return killed, stopped, gone


def main() -> int:
    """See the module."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory(prefix="draftd-group-recovery-") as folder:
        killed, stopped, gone = asyncio.run(measure(rounds, Path(folder)))
    table = Table(title=f"{rounds} rounds in turn; median seconds (and the least)", title_justify="left")
    for heading in ("", "noticed", "ready again", "first token for a client who asked at once"):
        table.add_column(heading)
    for words, found in (("killed", killed), ("stopped", stopped)):
        for name, times in found.items():
            columns = zip(*times, strict=True)
            cells = (f"{statistics.median(each):.2f} ({min(each):.2f})" for each in columns)
            table.add_row(f"{name} {words}", *cells)
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    print(f"daemon killed while a rank is stopped: nothing is left after {gone:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
