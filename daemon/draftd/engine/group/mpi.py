"""Lets ranks find each other by MPI, without mpirun starting them: it starts stand-ins in their places.

mpirun wants to start the processes by itself, over an ssh of its own: nobody here could promise their end, hear
them apart, or see that one hangs. But what MPI needs of it is only what it puts into their environment: where its
daemon on that machine listens, and which place they have. So it starts a *stand-in* for each rank, which says what
it was given and waits (`stand_in`). The ranks are started as with every other backend, and get that environment
before they connect. mpirun and the stand-ins stay until the group ends; they end with mpirun's stdin.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress

from draftd.engine.exits import EngineError
from draftd.engine.group import stand_in
from draftd.protocol import EXIT_FAILED, EXIT_REFUSED, NO_MPIRUN, SSH, GroupPlan, mpirun_path

STAND_IN = ("-u", "-P", "-m", "draftd.engine.group.stand_in")
OPEN_S = 60.0  # that mpirun and its daemons on other machines may take to start
CLOSE_S = 2.0  # that it may take to end its daemons and the stand-ins
MAX_WORDS = 2000  # characters of what mpirun says


class MeetingPoint:
    """mpirun and its stand-ins. `say` writes into the group's log."""

    def __init__(self, plan: GroupPlan, python: str, say: Callable[[bytes], None]) -> None:
        self._plan, self._python, self._say = plan, python, say
        self._process: asyncio.subprocess.Process | None = None
        self._words = b""
        self._opened = asyncio.Event()
        self._hearing: asyncio.Task[None] | None = None

    async def open(self, env: Mapping[str, str]) -> list[dict[str, str]]:
        """Start it; return what each rank needs in its environment. Raise EngineError."""
        command, environ = self._command(), {**env, **self._plan.env, **self._environ()}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env=environ,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise EngineError(EXIT_FAILED, f"{command[0]} could not be started: {error}") from error
        self._hearing = asyncio.create_task(self._hear(self._process))
        try:
            async with asyncio.timeout(OPEN_S):
                given = await self._given(self._process)
                if given is not None:
                    self._opened.set()
                    return given
                await self._hearing
        except TimeoutError:
            pass
        code = self._process.returncode
        how = (
            f"has not brought the ranks together within {OPEN_S:g} s"
            if code is None
            else f"ended with {code}"
        )
        words = " ".join(self._words.decode(errors="replace").split())[-MAX_WORDS:]
        raise EngineError(EXIT_FAILED, f"mpirun {how}: {words or 'it says nothing of why'}")

    async def ended(self) -> None:
        """Return when it has ended after it was opened."""
        await self._opened.wait()
        assert self._process is not None, "it was opened"
        await self._process.wait()

    async def close(self) -> None:
        """End it, and return when it is gone. What it says of that is of no interest."""
        self._say = _nothing
        if self._process is None:
            return
        for end in (self._process.terminate, self._process.kill):
            with suppress(ProcessLookupError):
                end()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), CLOSE_S)
        if self._hearing is not None:
            await self._hearing

    def _command(self) -> list[str]:
        mpirun = shutil.which("mpirun", path=mpirun_path(self._python, os.environ.get("PATH", "")))
        if mpirun is None:
            raise EngineError(EXIT_REFUSED, NO_MPIRUN)
        command = [
            mpirun,
            "--map-by",
            ":OVERSUBSCRIBE",
            *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        ]
        for member in self._plan.members:
            command += ["-n", "1", "--host", member.ssh or "localhost", self._python, *STAND_IN, ":"]
        return command[:-1]

    def _environ(self) -> dict[str, str]:
        return {"OMPI_MCA_plm_rsh_agent": shlex.join(SSH), "PRTE_MCA_plm_ssh_agent": shlex.join(SSH)}

    async def _given(self, process: asyncio.subprocess.Process) -> list[dict[str, str]] | None:
        """What all stand-ins have been given; None if it ends before they have said so."""
        assert process.stdout is not None, "it is a pipe"
        given: dict[int, dict[str, str]] = {}
        while len(given) < len(self._plan.members):
            try:
                if not (said := await process.stdout.readline()):
                    return None
                rank, environ = stand_in.parse(said)
            except ValueError:  # mpirun's own words, or a line without end
                continue
            given[rank] = environ
        return [given[rank] for rank in sorted(given)]

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None, "it is a pipe"
        with suppress(ValueError):
            while line := await process.stderr.readline():
                self._words = (self._words + line)[-4 * MAX_WORDS :]
                self._say(b"[mpirun] " + line)
        await process.wait()


def _nothing(data: bytes) -> None: ...
