"""`python -m tests.soak.recovery [ROUNDS]`: how fast a dead worker is back, beside a server started by hand.

In each round an mlx_lm.server on the demo pair is started by hand and asked until its first token comes, and then
the worker of a running daemon is killed and the daemon asked for a token: the same models, the same machine, in
turn. At last the worker is stopped (SIGSTOP), as if it hung. Exit code 1 if a goal is missed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.table import Table

from daemon.demo import DRAFT, TARGET
from daemon.profile_tables import HealthPolicy, RestartPolicy
from tests.harness import free_ports
from tests.soak.running import Running, profile, running

LENGTH = 5
POLL = 0.02  # seconds between two tries to reach a server that does not listen yet
NAME = "worker"
# Each crash counts as a single one after a stable time, which is half a second here instead of a minute.
TABLES = "[restart]\nstable_after = 0.5\nwindow = 0.5\n"
NOTICED_GOAL = 0.1
READY_GOAL = 1.15
LIMIT = 120.0


@dataclass(frozen=True)
class Recovery:
    """Seconds from the kill until it was noticed, until the next child was ready, until a client had a token."""

    noticed: float
    ready: float
    first_token: float


async def measure(rounds: int, folder: Path) -> tuple[list[float], list[Recovery], list[float]]:
    """Seconds to a bare server's first token, the recoveries, and seconds until a hung worker was noticed.

    The first round of each is not counted: it finds files that nobody has read.
    """
    async with running(folder, {NAME: profile(LENGTH, tables=TABLES)}) as daemon:
        bare, recoveries = [], []
        for _ in range(rounds + 1):
            bare.append(await _bare(daemon.http))
            recoveries.append(await _killed(daemon))
        hung = [await _hung(daemon) for _ in range(2)]
    return bare[1:], recoveries[1:], hung


async def _bare(http: aiohttp.ClientSession) -> float:
    port = free_ports()
    command = [sys.executable, "-m", "mlx_lm", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(TARGET), "--draft-model", str(DRAFT), "--num-draft-tokens", str(LENGTH)]
    quiet = asyncio.subprocess.DEVNULL
    began = time.monotonic()
    server = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        async with asyncio.timeout(LIMIT):
            await _first_token(http, f"http://127.0.0.1:{port}", "default_model")
        return time.monotonic() - began
    finally:
        server.terminate()
        await server.wait()


async def _first_token(http: aiohttp.ClientSession, url: str, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "stream": True}
    while True:
        try:
            async with http.post(f"{url}/v1/chat/completions", json=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {") and b'"error"' not in line:
                        return
        except aiohttp.ClientConnectorError:
            pass
        await asyncio.sleep(POLL)


async def _killed(daemon: Running) -> Recovery:
    [row] = await daemon.rows()
    began = time.monotonic()
    os.killpg(row["pid"], signal.SIGKILL)
    async with asyncio.timeout(LIMIT):
        await _first_token(daemon.http, daemon.url, NAME)
    first_token = time.monotonic()
    noticed = await daemon.until("worker backoff", since=began)
    ready = await daemon.until("worker ready", since=began)
    return Recovery(noticed.at - began, ready.at - began, first_token - began)


async def _hung(daemon: Running) -> float:
    [row] = await daemon.rows()
    began = time.monotonic()
    os.killpg(row["pid"], signal.SIGSTOP)
    noticed = await daemon.until("worker stopping", since=began)
    await daemon.until("worker ready", since=began)
    return noticed.at - began


def report(
    bare: Sequence[float], recoveries: Sequence[Recovery], hung: Sequence[float]
) -> tuple[Table, bool]:
    """The figures beside their goals, and whether all are met."""
    delay, health = RestartPolicy().stable_delay, HealthPolicy()
    middle = statistics.median(bare)
    goal = READY_GOAL * middle + delay
    ready = [one.ready for one in recoveries]
    detection = health.interval + health.failures * health.timeout + NOTICED_GOAL
    rows: list[tuple[str, Sequence[float], float | None]] = [
        ("killed worker noticed", [one.noticed for one in recoveries], NOTICED_GOAL),
        ("bare mlx_lm.server: start to first token", bare, None),
        ("killed worker ready again", ready, goal),
        ("killed worker: first token for a client", [one.first_token for one in recoveries], None),
        ("hung worker noticed", hung, detection),
    ]
    table = Table(title=f"Recovery, {len(bare)} rounds in turn; seconds", title_justify="left")
    for heading in ("", "median", "min", "max", "goal"):
        table.add_column(heading)
    for what, values, most in rows:
        figures = (statistics.median(values), min(values), max(values))
        table.add_row(what, *(f"{value:.3f}" for value in figures), f"{most:.3f}" if most else "")
    ratio = (statistics.median(ready) - delay) / middle
    table.caption = f"(ready - delay of {delay} s) / bare = {ratio:.2f}, goal {READY_GOAL}"
    return table, all(most is None or statistics.median(values) <= most for _, values, most in rows)


def main() -> int:
    """See the module."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    console = Console(width=None if sys.stdout.isatty() else 100)
    with tempfile.TemporaryDirectory(prefix="draftd-recovery-") as folder:
        table, well = report(*asyncio.run(measure(rounds, Path(folder))))
    console.print(table)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
