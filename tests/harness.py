"""A daemon in the test's own event loop, with scripted children, and the ways to wait for what it does."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import psutil
import pytest

from draftd.app import run
from draftd.daemon import Daemon
from draftd.profile_files import load_for
from draftd.profiles import Profile
from draftd.protocol import GUARDIAN_MODULE
from draftd.settings import Settings
from draftd.workers import command, loading

FAKE_SERVER = (sys.executable, "-I", "-S", str(Path(__file__).parent / "fake_server" / "__main__.py"))
GUARDED = [sys.executable, "-m", GUARDIAN_MODULE, *FAKE_SERVER]
ACCEPTANCE = (
    r"(\[(?P<profile>[A-Za-z0-9._-]+)\] )?Draft tokens accepted: "
    r"(?P<accepted>[0-9]+)/(?P<proposed>[0-9]+) \([0-9]+%\)"
)  # as the scripted server reports it, and only whole lines
QUICK = "[restart]\ninitial_delay = 0.05\nmax_delay = 0.2\n"
TCP = Path("/proc/net/tcp")
LIMIT = 15.0  # seconds; a deadline for things that take a fraction of it


def fake(*flags: str, top: str = "", tables: str = QUICK) -> str:
    """A profile that runs the scripted server with `flags`."""
    command = [*FAKE_SERVER, "--port", "{port}", "--model", "{model}", *flags]
    kept = f"acceptance_pattern = '{ACCEPTANCE}'"
    return f'model = "fake"\ncommand = {json.dumps(command)}\n{kept}\n{top}\n{tables}'


def play_engine(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    """Let the scripted server play the workers that would run mlx_lm. The daemon needs `warm_spare=False`."""
    monkeypatch.setattr(command, "ENGINE", [*FAKE_SERVER, *flags])


def free_ports(count: int = 1) -> int:
    """The first of `count` consecutive ports that are free on loopback.

    None that the system hands out by itself: a client's end of a connection could take the next one.
    """
    while True:
        first = random.SystemRandom().randrange(10_000, 32_000)
        if all(is_free(first + n) for n in range(count)):
            return first


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@contextmanager
def cheap_children() -> Iterator[None]:
    """Make a scripted child start faster, and checks of it come more often and cost next to nothing."""
    with ExitStack() as patches:
        patches.enter_context(patch.object(command, "argv", _argv(command.argv)))
        if TCP.exists():
            patches.enter_context(patch.object(loading, "owns_port", _owns_port))
        patches.enter_context(patch.object(loading, "POLL", 0.02))
        if Path(f"/proc/self/task/{os.getpid()}/children").exists():
            patches.enter_context(patch.object(psutil.Process, "children", _children))
        yield


def _argv(real: Callable[[Profile, int], list[str]]) -> Callable[[Profile, int], list[str]]:
    def light(profile: Profile, port: int) -> list[str]:
        words = real(profile, port)
        return (
            [*FAKE_SERVER, "--guarded", *words[len(GUARDED) :]] if words[: len(GUARDED)] == GUARDED else words
        )

    return light


def _children(process: psutil.Process, recursive: bool = False) -> list[psutil.Process]:
    """psutil's own walks through all processes of the machine; Linux knows the children of each thread."""
    found = []
    for told in Path(f"/proc/{process.pid}/task").glob("*/children"):
        with suppress(OSError, psutil.NoSuchProcess):
            found += [psutil.Process(int(pid)) for pid in told.read_text().split()]
    return [*found, *(each for child in found for each in _children(child, True))] if recursive else found


def _owns_port(pid: int, port: int, *, family: bool) -> bool:
    """psutil's own look reads of all connections on the machine: of thousands that have ended, while tests run."""
    sockets = _listening(port)
    with suppress(psutil.NoSuchProcess, OSError):
        process = psutil.Process(pid)
        candidates = [process, *(_children(process, True) if family else [])]
        return any(sockets & _sockets(each) for each in candidates)
    return False


def _listening(port: int) -> set[str]:
    """The sockets that listen on `port`, as links to them read. Linux tells of those that listen first."""
    found = set()
    with TCP.open("rb", buffering=4096) as lines:
        next(lines)
        for line in lines:
            _, local, _, state, *_, inode = line.split()[:10]
            if state != b"0A":
                break
            if int(local.rpartition(b":")[2], 16) == port:
                found.add(f"socket:[{inode.decode()}]")
    return found


def _sockets(process: psutil.Process) -> set[str]:
    found = set()
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(OSError):
            found.add(os.readlink(link))
    return found


def chat(text: str = "hi", **fields: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"messages": [{"role": "user", "content": text}], **fields}


@dataclass
class Answer:
    """What a client got. `cut`: the body ended without its end mark."""

    status: int
    headers: Mapping[str, str]
    text: str
    cut: bool

    @classmethod
    async def of(cls, response: aiohttp.ClientResponse) -> Answer:
        """Read to the end, or to where the body was cut off."""
        parts: list[bytes] = []
        cut = False
        try:
            async for chunk in response.content.iter_any():
                parts.append(chunk)  # noqa: PERF401 - what came before a cut is kept
        except aiohttp.ClientPayloadError:
            cut = True
        return cls(response.status, response.headers, b"".join(parts).decode(), cut)

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def events(self) -> list[Any]:
        """The data of each event; '[DONE]' as it is."""
        datas = [part[6:] for part in self.text.split("\n\n") if part.startswith("data: ")]
        return [data if data == "[DONE]" else json.loads(data) for data in datas]

    @property
    def content(self) -> str:
        """The text that a streaming client would show."""
        choices = [c for e in self.events if isinstance(e, dict) for c in e.get("choices", [])]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


class Served:
    """A running daemon and a client of it."""

    def __init__(self, daemon: Daemon, http: aiohttp.ClientSession, folder: Path) -> None:
        self.daemon = daemon
        self.http = http
        self.profiles = folder

    @property
    def url(self) -> str:
        return self.daemon.url

    def row(self, name: str) -> dict[str, Any]:
        """The worker in /api/status."""
        return next(row for row in self.daemon.workers() if row["name"] == name)

    def state(self, name: str) -> str:
        """Its state, without its memory, for which one must walk through all processes of the machine."""
        return self.daemon.supervisor.worker(name).state.label

    async def until(self, met: Callable[[], bool], limit: float = LIMIT) -> None:
        """Wait for the worker changes that make `met` true."""
        async with asyncio.timeout(limit):
            while not met():
                await self.daemon.until_changed()

    async def until_state(self, name: str, *states: str, limit: float = LIMIT) -> None:
        await self.until(lambda: self.state(name) in states, limit)

    async def until_queue(self, name: str, *, active: int = 1, waiting: int = 0) -> None:
        """Wait until `active` requests hold a place at the worker, and `waiting` wait for one."""
        admission = self.daemon.proxy.admission(name)
        async with asyncio.timeout(LIMIT):
            while (admission.active, admission.depth) != (active, waiting):  # noqa: ASYNC110 - one turn of the loop
                await asyncio.sleep(0)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.request("POST", path, json=body, **options)

    async def ask(self, model: str, text: str = "hi", **fields: Any) -> Answer:
        return await self.post("/v1/chat/completions", chat(text, model=model, **fields))

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        async with (
            asyncio.timeout(LIMIT * 2),
            self.http.request(method, self.url + path, **options) as response,
        ):
            return await Answer.of(response)

    async def metrics(self, **options: Any) -> dict[str, float]:
        """Every sample of /metrics: 'name{labels}' -> value."""
        text = (await self.get("/metrics", **options)).text
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def write(self, name: str, text: str) -> None:
        (self.profiles / f"{name}.toml").write_text(text)


@asynccontextmanager
async def serving(
    tmp_path: Path,
    profiles: Mapping[str, str],
    *,
    ready: bool = True,
    ready_limit: float = LIMIT,
    **settings: Any,
) -> AsyncIterator[Served]:
    """Run a daemon with these profile files; with `ready`, wait until every autostart worker serves."""
    folder = tmp_path / "profiles"
    folder.mkdir(exist_ok=True)
    for name, text in profiles.items():
        (folder / f"{name}.toml").write_text(text)
    given: dict[str, Any] = {"port": free_ports(), "base_port": free_ports(len(profiles) + 2)}
    given |= {"stop_grace": 1.0, "memory_pressure": "off"} | settings
    made = Settings(profiles=folder, state_dir=tmp_path / "state", **given)
    started: asyncio.Future[Daemon] = asyncio.get_running_loop().create_future()

    async def beside(daemon: Daemon) -> None:
        started.set_result(daemon)

    def is_settled(name: str) -> bool:
        return served.state(name) in {"ready", "stopped", "asleep"}

    with cheap_children():
        # A fixture's loop stands still between two tests. Then both ends find in the same turn that time is up, and
        # a client that goes by aiohttp's own 15 s sends a request on a connection that is just being closed.
        connector = aiohttp.TCPConnector(keepalive_timeout=made.connection_timeout / 2)
        async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as tasks:
            running = tasks.create_task(run(made, lambda: load_for(made), beside))
            served = Served(await started, http, folder)
            try:
                if ready:
                    await served.until(lambda: all(map(is_settled, profiles)), ready_limit)
                yield served
            finally:
                served.daemon.stop()
                served.daemon.stop()  # do not wait for open requests
                async with asyncio.timeout(LIMIT):
                    await running


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until_gone(pid: int, limit: float = LIMIT) -> None:
    """Wait for a process to end. A child of ours is left for the loop to reap: it would otherwise wait for ever."""
    async with asyncio.timeout(limit):
        with suppress(ChildProcessError):
            await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            return
    process = psutil.Process(pid) if alive(pid) else None
    if process is not None:
        await asyncio.to_thread(process.wait, limit)


def kill(pid: int, number: int) -> None:
    """Signal a worker's whole group: its leader is the guardian of the scripted server."""
    os.killpg(pid, number)


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """The contents of `folder` may not be looked at, as without leave on macOS, not even by tests of root."""
    look = os.stat

    def refused(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if not isinstance(path, int) and Path(os.fsdecode(path)).parent == folder:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        return look(path, *args, **kwargs)

    with patch.object(os, "stat", refused):
        yield
