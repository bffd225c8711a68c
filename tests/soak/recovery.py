"""`python -m tests.soak.recovery [ROUNDS]`: how fast a dead worker is back, beside a server started by hand.

In each round an mlx_lm.server on the demo pair is started by hand and asked until its first token comes; then the
worker of a running daemon is killed and the daemon asked for a token; then the same with a daemon that keeps a warm
spare. The models and the machine are the same, and nothing else of ours runs meanwhile. At last the worker is
stopped (SIGSTOP), as if it hung. Exit code 1 if a goal is missed.
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
import psutil
from rich.console import Console
from rich.table import Table

from draftd.demo import DRAFT, TARGET
from draftd.profile_tables import HealthPolicy, RestartPolicy
from tests.harness import free_ports
from tests.soak.running import Running, profile, running

LENGTH = 5
POLL = 0.02  # seconds between two tries to reach a server that does not listen yet
NAME = "worker"
TABLES = "[restart]\nwindow = 0.5\n"  # so that each crash counts as a single one
NOTICED_GOAL = 0.1
READY_GOAL = 1.15
SPARE_GOAL = 0.6
LIMIT = 120.0


@dataclass(frozen=True)
class Recovery:
    """Seconds from the kill until it was noticed, until the next child was ready, until a client had a token."""

    noticed: float
    ready: float
    first_token: float


@dataclass(frozen=True)
class Measured:
    """Seconds to a bare server's first token, the recoveries without and with a spare, seconds until a hung worker
    was noticed, and bytes of a spare: resident, and its share (PSS, or what is not shared if that is unknown).
    """

    bare: Sequence[float]
    cold: Sequence[Recovery]
    warm: Sequence[Recovery]
    hung: Sequence[float]
    spare: tuple[int, int]


async def measure(rounds: int, folder: Path) -> Measured:
    """The first round of each is not counted: it finds files that nobody has read."""
    profiles = {NAME: profile(LENGTH, tables=TABLES)}
    folders = [folder / "without", folder / "with"]
    for made in folders:
        made.mkdir()
    async with (
        running(folders[0], profiles) as daemon,
        running(folders[1], profiles, {"DRAFTD_WARM_SPARE": "true"}) as with_spare,
    ):
        bare, cold, warm = [], [], []
        began = 0.0
        for _ in range(rounds + 1):
            await with_spare.until("the warm spare waits", since=began)
            bare.append(await _bare(daemon.http))
            cold.append(await _killed(daemon))
            began = time.monotonic()
            warm.append(await _killed(with_spare))
        spare = await with_spare.until("the warm spare waits", since=began)
        memory = _memory(spare.fields["pid"])
        hung = [await _hung(daemon) for _ in range(2)]
    return Measured(bare[1:], cold[1:], warm[1:], hung, memory)


def _memory(pid: int) -> tuple[int, int]:
    found = psutil.Process(pid).memory_full_info()
    return found.rss, getattr(found, "pss", found.uss)


async def _bare(http: aiohttp.ClientSession) -> float:
    port = free_ports()
    command = [sys.executable, "-m", "mlx_lm", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(TARGET), "--draft-model", str(DRAFT), "--num-draft-tokens", str(LENGTH)]
    quiet = asyncio.subprocess.DEVNULL
    began = time.monotonic()
    server = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        async with asyncio.timeout(LIMIT):
            await first_token(http, f"http://127.0.0.1:{port}", "default_model")
        return time.monotonic() - began
    finally:
        server.terminate()
        await server.wait()


async def first_token(http: aiohttp.ClientSession, url: str, model: str) -> None:
    """Ask until a first token comes."""
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
        await first_token(daemon.http, daemon.url, NAME)
    token = time.monotonic()
    noticed = await daemon.until("worker backoff", since=began)
    ready = await daemon.until("worker ready", since=began)
    return Recovery(noticed.at - began, ready.at - began, token - began)


async def _hung(daemon: Running) -> float:
    [row] = await daemon.rows()
    began = time.monotonic()
    os.killpg(row["pid"], signal.SIGSTOP)
    noticed = await daemon.until("worker stopping", since=began)
    await daemon.until("worker ready", since=began)
    return noticed.at - began


def report(measured: Measured) -> tuple[Table, bool]:
    """The figures beside their goals, and whether all are met."""
    delay, health = RestartPolicy().stable_delay, HealthPolicy()
    cold, warm = measured.cold, measured.warm
    middle = statistics.median(measured.bare)
    detection = health.interval + health.failures * health.timeout + NOTICED_GOAL
    rows: list[tuple[str, Sequence[float], float | None]] = [
        ("killed worker noticed", [one.noticed for one in (*cold, *warm)], NOTICED_GOAL),
        ("bare mlx_lm.server: start to first token", measured.bare, None),
        ("killed worker ready again", [one.ready for one in cold], READY_GOAL * middle + delay),
        ("killed worker: first token for a client", [one.first_token for one in cold], None),
        ("with a warm spare: ready again", [one.ready for one in warm], SPARE_GOAL * middle),
        ("with a warm spare: first token for a client", [one.first_token for one in warm], None),
        ("hung worker noticed", measured.hung, detection),
    ]
    table = Table(title=f"Recovery, {len(warm)} rounds in turn; seconds", title_justify="left")
    for heading in ("", "median", "min", "max", "goal"):
        table.add_column(heading)
    for what, values, most in rows:
        figures = (statistics.median(values), min(values), max(values))
        table.add_row(what, *(f"{value:.3f}" for value in figures), f"{most:.3f}" if most else "")
    again = [statistics.median(one.ready for one in recoveries) for recoveries in (cold, warm)]
    table.caption = (
        f"(ready - delay of {delay} s) / bare = {(again[0] - delay) / middle:.2f}, goal {READY_GOAL}; with a warm"
        f" spare {(again[1] - delay) / middle:.2f}, and {again[1] / middle:.2f} with the delay, goal {SPARE_GOAL}. "
        f"Memory of a spare: {measured.spare[0] / 1e6:.0f} MB resident, its share {measured.spare[1] / 1e6:.0f} MB."
    )
    return table, all(most is None or statistics.median(values) <= most for _, values, most in rows)


def main() -> int:
    """See the module."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    console = Console(width=None if sys.stdout.isatty() else 100)
    with tempfile.TemporaryDirectory(prefix="draftd-recovery-") as folder:
        table, well = report(asyncio.run(measure(rounds, Path(folder))))
    console.print(table)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
