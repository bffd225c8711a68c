"""`draftd up` in a process of its own on the demo pair, followed through its log; for what takes a while to see."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from draftd.demo import DRAFT, TARGET
from tests.harness import free_ports

START_LIMIT = 120.0  # seconds
STOP_LIMIT = 60.0


def profile(length: int, *, top: str = "", tables: str = "") -> str:
    """A profile of the demo pair with this draft length."""
    return f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\nnum_draft_tokens = {length}\n{top}\n{tables}'


@dataclass(frozen=True)
class Line:
    """One line of the daemon's log and when it was read, in monotonic seconds."""

    at: float
    fields: Mapping[str, Any]

    @property
    def event(self) -> str:
        return str(self.fields.get("event", ""))


@dataclass
class Running:
    """A running daemon. `lines` is its log so far."""

    process: asyncio.subprocess.Process
    url: str
    folder: Path
    http: aiohttp.ClientSession
    lines: list[Line] = field(default_factory=list)
    words: str = ""  # what else it said
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _over: bool = False

    @property
    def logs(self) -> Path:
        """The folder of the workers' logs."""
        return self.folder / "state" / "logs"

    async def hear(self) -> None:
        """Read the log until the daemon ends."""
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            if raw.startswith(b"{"):
                self.lines.append(Line(time.monotonic(), json.loads(raw)))
            else:
                self.words += raw.decode(errors="replace")
            self._wake()
        self._over = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def until(self, event: str, since: float = 0.0, limit: float = START_LIMIT, **fields: Any) -> Line:
        """The first line since then about `event` with these fields."""
        async with asyncio.timeout(limit):
            while True:
                for line in self.lines:
                    if line.at >= since and line.event == event and fields.items() <= line.fields.items():
                        return line
                if self._over:
                    raise RuntimeError(f"the daemon ended before '{event}': {self.words}")
                await self._news.wait()

    async def until_ready(self, limit: float = START_LIMIT) -> None:
        """Wait until every worker is ready."""
        async with asyncio.timeout(limit):
            while any(row["state"] != "ready" for row in await self.rows()):
                await self._news.wait()

    async def rows(self) -> list[dict[str, Any]]:
        """The workers in /api/status."""
        async with self.http.get(f"{self.url}/api/status") as response:
            rows: list[dict[str, Any]] = (await response.json())["workers"]
            return rows

    async def metrics(self) -> str:
        """What /metrics says."""
        async with self.http.get(f"{self.url}/metrics") as response:
            return await response.text()

    def write(self, name: str, text: str) -> None:
        """Put a profile in place as a whole: a file that is still being written would be refused."""
        made = self.folder / f"{name}.new"
        made.write_text(text)
        made.replace(self.folder / "profiles" / f"{name}.toml")


@asynccontextmanager
async def running(
    folder: Path, profiles: Mapping[str, str], env: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    """Start the daemon and wait until every worker is ready; end it afterwards, and read all of its log."""
    (folder / "profiles").mkdir()
    port = free_ports()
    command = [sys.executable, "-m", "draftd", "up", "--json"]
    command += ["--profiles", str(folder / "profiles"), "--state-dir", str(folder / "state")]
    command += ["--port", str(port), "--base-port", str(free_ports(len(profiles) + 2))]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DRAFTD_")}
    for name, text in profiles.items():
        (folder / "profiles" / f"{name}.toml").write_text(text)
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**kept, "XDG_CONFIG_HOME": str(folder / "config"), "DRAFTD_LOG_FORMAT": "json", **(env or {})},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    # One connection a call: the daemon's descriptors are counted, and ours must not be among them.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as tasks:
        daemon = Running(process, f"http://127.0.0.1:{port}", folder, http)
        tasks.create_task(daemon.hear())
        try:
            await daemon.until("draftd serves")
            await daemon.until_ready()
            yield daemon
        finally:
            await stop(process)


async def stop(process: asyncio.subprocess.Process) -> list[psutil.Process]:
    """End the daemon; returns those of its processes that it left behind."""
    if process.returncode is not None:
        return []
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_LIMIT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    _, left = await asyncio.to_thread(psutil.wait_procs, family, 2)
    return list(left)
