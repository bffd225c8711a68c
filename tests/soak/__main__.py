"""`python -m tests.soak [SECONDS]`: clients and trouble for that long, and then the account; exit code 1 if it is
wrong.

Clients ask, wait and leave while workers are killed and stopped and profiles change. Before and after, all clients
go away and the daemon is measured at rest. A request counts as lost if its client got neither a whole answer nor an
honest error, and as doubled if workers were sent it twice (see tap/).
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import aiohttp
import psutil
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table

from tests.soak.account import Check, Level, Story, checks
from tests.soak.clients import Outcome, client
from tests.soak.running import Running, running, stop
from tests.soak.trouble import ALIAS, NAMES, Trouble, profiles

CLIENTS = 5
MODELS = (*NAMES * 5, ALIAS)  # as often as they stand here
REST = 3.0  # seconds in which the daemon is looked at; its health checks come and go
PAUSE = (3.0, 10.0)  # seconds between two troubles
TAP = Path(__file__).with_name("tap")


async def soak(seconds: float, folder: Path, console: Console, seed: int) -> list[Check]:
    """Run it; returns the account. The first tenth of the time is warmup, without trouble."""
    record = folder / "sent"
    record.touch()
    path = os.pathsep.join(filter(None, (str(TAP), os.environ.get("PYTHONPATH"))))
    env = {"PYTHONPATH": path, "SOAK_RECORD": str(record)}
    outcomes: list[Outcome] = []
    async with running(folder, profiles(), env) as daemon:
        trouble = Trouble(daemon, Random(seed))
        with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console) as progress:
            bar = progress.add_task("warm-up", total=seconds)

            def tick(passed: float) -> None:
                progress.update(bar, advance=passed)

            outcomes += await _clients(daemon, seconds / 10, seed, None, tick)
            before = await _at_rest(daemon)
            progress.update(bar, description="trouble")
            outcomes += await _clients(daemon, seconds * 9 / 10, seed + CLIENTS, trouble, tick)
            progress.update(bar, description="at rest")
            await daemon.until_ready()
            after = await _at_rest(daemon)
        metrics, rows = await daemon.metrics(), await daemon.rows()
        left = await stop(daemon.process)
    sent = Counter(record.read_text().split())
    lines = [line for file in daemon.logs.glob("*.log*") for line in file.read_text().splitlines()]
    log = [line.fields for line in daemon.lines]
    story = Story(outcomes, sent, metrics, rows, log, lines, trouble.made, before, after)
    return [*checks(story), *_end(daemon, left)]


def _end(daemon: Running, left: list[psutil.Process]) -> list[Check]:
    still_open = next(line.fields["open_requests"] for line in daemon.lines if line.event == "draftd stops")
    code = daemon.process.returncode
    figure = f"exit code {code}, {still_open} requests open, {len(left)} processes left"
    return [Check("the stop", figure, (code, still_open, left) == (0, 0, []))]


async def _clients(
    daemon: Running, seconds: float, seed: int, trouble: Trouble | None, tick: Callable[[float], None]
) -> list[Outcome]:
    """Let the clients ask for that long, and wait until all have their last answer."""
    over = asyncio.Event()
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        asking = [
            tasks.create_task(client(http, daemon.url, MODELS, Random(seed + n), over=over))
            for n in range(CLIENTS)
        ]
        if trouble is not None:
            tasks.create_task(trouble.make(over, PAUSE))
        end = time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0:
            await asyncio.sleep(min(1.0, remaining))
            tick(min(1.0, remaining))
        over.set()
    return [outcome for task in asking for outcome in task.result()]


async def _at_rest(daemon: Running) -> Level:
    """The least of several looks at the daemon without a client: health checks hold a connection for a moment."""
    process = psutil.Process(daemon.process.pid)
    levels = []
    end = time.monotonic() + REST
    while time.monotonic() < end:
        levels.append(Level(process.memory_info().rss, process.num_fds(), process.num_threads()))
        await asyncio.sleep(0.1)
    return Level(*(min(values) for values in zip(*((x.rss, x.fds, x.threads) for x in levels), strict=True)))


def table(found: list[Check], seconds: float) -> Table:
    """The account, to be read by people."""
    made = Table(title=f"draftd after {seconds:.0f} s of {CLIENTS} clients and trouble", title_justify="left")
    for heading in ("check", "figure", ""):
        made.add_column(heading, overflow="fold")
    for check in found:
        made.add_row(check.what, check.figure, "[green]well[/]" if check.well else "[red]WRONG[/]")
    return made


def main() -> int:
    """See the module."""
    seconds = float(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SOAK_SECONDS", "600"))
    console = Console(width=None if sys.stdout.isatty() else 110)
    seed = time.time_ns() % 10**6
    console.print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="draftd-soak-") as folder, suppress(KeyboardInterrupt):
        found = asyncio.run(soak(seconds, Path(folder), console, seed))
        console.print(table(found, seconds))
        return 0 if all(check.well for check in found) else 1
    return 130


if __name__ == "__main__":
    sys.exit(main())
