"""One rank, as the launcher has it: its process, or that of ssh, and what is heard of it."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from draftd.engine.group import wire
from draftd.engine.group.guard import RANK
from draftd.protocol import SSH, Member

GUARD = ("-u", "-P", "-m", "draftd.engine.group.guard")
MAX_HELD = 8192  # bytes of a line of its log that has no end yet

OnMessage = Callable[["Launched", dict[str, Any], bytes], None]


class Launched:
    """See the module. `name` is what people call it; `code` is its exit code, None while it runs."""

    def __init__(self, rank: int, member: Member, say: Callable[[bytes], None]) -> None:
        self.rank = rank
        self.member = member
        self.name = f"rank {rank}" + (f" on {member.ssh}" if member.ssh else "")
        self.memory = 0
        self.heard = time.monotonic()
        self.last_words = b""
        self.answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._say = say
        self._held = b""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, setup: wire.Setup, python: str, env: Mapping[str, str]) -> None:
        """Start it. Raises OSError."""
        if self.member.ssh:
            argv = [*SSH, "--", self.member.ssh, f"exec {shlex.join([python, *GUARD])}"]
        else:
            argv = [python, *RANK]
        self._process = await asyncio.create_subprocess_exec(
            *argv,
            env=env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=wire.MAX_LINE,
        )
        self.heard = time.monotonic()
        self.send(setup.line())

    @property
    def pid(self) -> int:
        """Of its process, or of ssh."""
        return self._process.pid if self._process else 0

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs, or if it was not started."""
        return self._process.returncode if self._process else None

    def send(self, line: bytes) -> None:
        """Write a line; it is lost if the rank has ended."""
        stdin = self._process.stdin if self._process else None
        if stdin is not None and not stdin.is_closing():
            with suppress(OSError, RuntimeError):
                stdin.write(line)

    async def listen(self, on_message: OnMessage) -> None:
        """Hand on what it says, and return when it has ended."""
        assert self._process is not None, "it was started"
        process = self._process
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_messages(process, on_message))
            tasks.create_task(self._read_log(process))
            await process.wait()

    def end(self) -> None:
        """Tell it to end: over its stdin, and by SIGTERM."""
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            with suppress(ProcessLookupError):
                self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def ended(self) -> None:
        """Return when it has ended."""
        if self._process is not None:
            await self._process.wait()

    async def _read_messages(self, process: asyncio.subprocess.Process, on_message: OnMessage) -> None:
        assert process.stdout is not None
        with suppress(ValueError):  # a line without end: from no rank of ours
            while text := await process.stdout.readline():
                try:
                    said = wire.parse(text)
                except ValueError:
                    continue
                self.heard = time.monotonic()
                on_message(self, said, text)

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while piece := await process.stderr.read(65536):
            self.last_words = (self.last_words + piece)[-MAX_HELD:]
            *lines, self._held = (self._held + piece).split(b"\n")
            if len(self._held) > MAX_HELD:
                lines, self._held = [*lines, self._held], b""
            self._write(lines)
        self._write([self._held] if self._held else [])

    def _write(self, lines: list[bytes]) -> None:
        head = f"[{self.name}] ".encode()
        self._say(b"".join(head + line + b"\n" for line in lines))


def local_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of what is started here: our own, without what only we are to know."""
    return {name: value for name, value in base.items() if not name.startswith("DRAFTD_")}


def remote_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return what of our own environment a rank on another machine is to have."""
    wanted = ("TOKENIZERS_PARALLELISM",)  # not HF_HUB_OFFLINE: what is here need not be there
    return {name: base[name] for name in wanted if name in base}


def python_of(plan_python: str) -> str:
    """Return what runs a rank."""
    return plan_python or os.path.abspath(sys.executable)
