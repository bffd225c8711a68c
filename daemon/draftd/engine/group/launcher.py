"""Starts the ranks of a group, keeps what they say apart, and ends all when one has ended. See the package."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from draftd.engine import records
from draftd.engine.exits import EngineError
from draftd.engine.group import wire
from draftd.engine.group.backends import MPI, addresses, environment, ports_needed
from draftd.engine.group.guard import END_S
from draftd.engine.group.launched import (
    Launched,
    local_environment,
    python_of,
    remote_environment,
)
from draftd.engine.group.mpi import MeetingPoint
from draftd.protocol import (
    EXIT_FAILED,
    EXIT_PORT_TAKEN,
    EXIT_REFUSED,
    RANKS,
    SSH_FAILED,
    GroupPlan,
    MemoryShare,
)

TRIES = 20  # of other ports
MAX_CLOCKS_APART = 30.0  # seconds: more makes logs of several machines hard to read
LOOPBACK = "127.0.0.1"
COMPARED = ("draftd", "mlx", "mlx-lm")


class Launcher:
    """A group from its start to its end. `channel` is the daemon's, None without one."""

    def __init__(self, plan: GroupPlan, flags: Sequence[str], secret: str, channel: int | None) -> None:
        self._plan, self._flags, self._secret, self._channel = plan, list(flags), secret, channel
        self._ranks = [Launched(rank, member, _log) for rank, member in enumerate(plan.members)]
        self._share: asyncio.Future[MemoryShare] = asyncio.get_running_loop().create_future()
        self._stopping = asyncio.Event()
        self._meeting = MeetingPoint(plan, python_of(plan.python), _log)

    async def run(self) -> int:
        """Run the group; return how it has ended: an exit code, negative for a signal. Raise EngineError."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        tasks: list[asyncio.Task[Any]] = []
        first = None
        try:
            await self._start_ranks()
            over = [*map(self._watch, self._ranks), self._beat(), self._stopping.wait(), self._mpirun_ended()]
            tasks = [asyncio.create_task(each) for each in (self._bring_together(), *over)]
            together, *until = tasks
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if together.done():
                together.result()
                await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
            for task in until:
                if task.done():
                    task.result()
        finally:
            first = next((rank for rank in self._ranks if rank.code is not None), None)
            for task in tasks:
                task.cancel()
            await self._end_ranks()
            await self._meeting.close()
        return -signal.SIGTERM if self._stopping.is_set() else self._outcome(first)

    def take_share(self, share: MemoryShare) -> None:
        """This machine's share of the memory, for its ranks alike. Others go by their GPU's own word."""
        here = [rank for rank in self._ranks if not rank.member.ssh]
        each = {"wired": share.wired // len(here), "prompt_cache": share.prompt_cache // len(here)}
        if not self._share.done():
            self._share.set_result(MemoryShare(**each))
            return
        for rank in here:
            rank.send(wire.line({wire.SHARE: each}))

    # --- to begin ---------------------------------------------------------------------------------------------

    async def _start_ranks(self) -> None:
        python = python_of(self._plan.python)
        here, there = local_environment(os.environ), remote_environment(os.environ)
        for rank in self._ranks:
            setup = wire.Setup(
                rank.rank,
                len(self._ranks),
                self._flags,
                self._plan.backend,
                {**(there if rank.member.ssh else {}), **self._plan.env},
                self._secret if rank.rank == 0 else "",
            )
            try:
                await rank.start(setup, python, here)
            except OSError as error:
                raise EngineError(EXIT_FAILED, f"{rank.name} could not be started: {error}") from error

    async def _bring_together(self) -> None:
        """When all have imported everything, let them connect, on ports that are free everywhere."""
        hellos = [(await rank.answers.get())[wire.HELLO] for rank in self._ranks]
        _compare(self._ranks, hellos)
        port = await self._free_ports()
        given: list[dict[str, str]] = [{} for _ in self._ranks]
        if self._plan.backend == MPI:
            given = await self._meeting.open(local_environment(os.environ))
        share = await self._share if self._channel is not None else None
        for rank in self._ranks:
            go: dict[str, Any] = environment(self._plan, rank.rank, port)
            go["environ"] |= given[rank.rank]
            if share is not None and not rank.member.ssh:
                go |= {wire.SHARE: {"wired": share.wired, "prompt_cache": share.prompt_cache}}
            rank.send(wire.line({wire.GO: go}))

    async def _free_ports(self) -> int:
        """Return the first of the ports. Raise EngineError if none are free at all ranks."""
        count, busy = ports_needed(self._plan), ""
        here_only = all(member.ips == (LOOPBACK,) for member in self._plan.members)
        for attempt in range(TRIES):
            first = _some_port() if here_only else self._plan.port + attempt * count
            wanted = addresses(self._plan, first)
            for rank, own in zip(self._ranks, wanted, strict=True):
                rank.send(wire.line({wire.PORTS: own}))
            found = [(rank, (await rank.answers.get())[wire.BUSY]) for rank in self._ranks]
            taken = [f"{host}:{port} at {rank.name}" for rank, own in found for host, port in own]
            if not taken:
                return first
            busy = ", ".join(taken)
        raise EngineError(
            EXIT_PORT_TAKEN,
            f"the ranks find no ports to talk to each other, at last {busy}; `port` in [distributed] sets the "
            "first that is tried, and each address of the hostfile has to be one of its machine",
        )

    # --- while it runs ----------------------------------------------------------------------------------------

    async def _watch(self, rank: Launched) -> None:
        """Hear a rank until it has ended."""
        await rank.listen(self._heard)

    async def _mpirun_ended(self) -> None:
        await self._meeting.ended()
        records.say("mpirun has ended, so the group ends")

    def _heard(self, rank: Launched, said: dict[str, Any], text: bytes) -> None:
        if wire.ALIVE in said:
            rank.memory = int(said[wire.ALIVE])
        elif wire.WAKE in said:
            for other in self._ranks[1:]:
                other.send(wire.line({wire.WAKE: True}))
        elif wire.HELLO in said or wire.BUSY in said:
            rank.answers.put_nowait(said)
        elif "event" in said and rank.rank == 0:
            self._report(text)

    async def _beat(self) -> None:
        while True:
            for rank in self._ranks:
                rank.send(b"\n")
            self._report(json.dumps({"event": RANKS, "ranks": self._state()}).encode() + b"\n")
            await asyncio.sleep(wire.BEAT_S)

    def _state(self) -> list[dict[str, Any]]:
        now = time.monotonic()
        return [
            {
                "rank": rank.rank,
                "host": rank.member.ssh,
                "pid": None if rank.member.ssh else rank.pid,
                "memory": rank.memory,
                "silent": round(now - rank.heard, 3),
            }
            for rank in self._ranks
        ]

    def _report(self, line: bytes) -> None:
        if self._channel is not None:
            _write(self._channel, line)

    # --- to end -----------------------------------------------------------------------------------------------

    async def _end_ranks(self) -> None:
        for rank in self._ranks:
            rank.end()
        ended = [asyncio.ensure_future(rank.ended()) for rank in self._ranks]
        _, late = await asyncio.wait(ended, timeout=END_S)
        if late:
            for rank in self._ranks:
                rank.kill()
            await asyncio.wait(late)

    def _outcome(self, first: Launched | None) -> int:
        """Say which rank has ended the group, and return how."""
        if first is None or first.code is None:
            return EXIT_FAILED
        code = first.code
        if first.member.ssh and code == SSH_FAILED:
            last = first.last_words.decode(errors="replace").strip().splitlines()
            why = last[-1] if last else "ssh says nothing of why"
            records.say(f"{first.name} was lost, so the group ends: {why}")
            return EXIT_FAILED
        if code < 0 or code > 128:
            number = -code if code < 0 else code - 128
            with suppress(ValueError):
                records.say(f"{first.name} was ended by {signal.Signals(number).name}, so the group ends")
                return -number
        records.say(f"{first.name} ended with exit code {code}, so the group ends")
        return code or EXIT_FAILED


def _compare(ranks: Sequence[Launched], hellos: Sequence[dict[str, Any]]) -> None:
    """Raise EngineError where ranks run different versions or lack the model; say that clocks are apart."""
    for rank, hello in zip(ranks, hellos, strict=True):
        others = [f"{name} {hello[name]}" for name in COMPARED if hello[name] != hellos[0][name]]
        if others:
            ours = ", ".join(f"{name} {hellos[0][name]}" for name in COMPARED)
            raise EngineError(
                EXIT_REFUSED,
                f"{rank.name} has {', '.join(others)}, and this machine {ours}: install the same on all machines",
            )
        if hello["missing"]:
            raise EngineError(
                EXIT_REFUSED,
                f"{rank.name} has no {' and no '.join(hello['missing'])}: a model that is named by its folder has "
                "to be in the same folder on all machines",
            )
        apart = abs(hello["time"] - hellos[0]["time"])
        if rank.member.ssh and apart > MAX_CLOCKS_APART + (time.time() - hellos[0]["time"]):
            records.say(f"the clock of {rank.name} is {apart:.0f} s off ours: set both by the network's time")


def _some_port() -> int:
    """Return a port that is free here now; those after it mostly are, too."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _log(data: bytes) -> None:
    _write(2, data)


def _write(fd: int, data: bytes) -> None:
    with suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]
