"""Pretended children for real workers: the test says what a child does, and that happens at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import patch

from draftd.protocol import MemoryShare
from draftd.workers import children, process
from draftd.workers.events import Event
from draftd.workers.memory_book import MemoryBook
from draftd.workers.resources import LoadGate, PortBook
from draftd.workers.room import Room
from draftd.workers.services import Services
from draftd.workers.warm_spare import Starter
from draftd.workers.watched import Watched

TURNS = 30  # of the loop, in which everything that can happen happens
AT_ONCE = 1e-6  # seconds
NEVER = 1e6


class World:
    """The children, what their monitors would report, and what the workers report to the daemon."""

    def __init__(
        self,
        *,
        stubborn: bool = False,
        spawns: bool = True,
        loads: int = 1,
        stop_grace: float = AT_ONCE,
        room: Room | None = None,
    ) -> None:
        self.stubborn = stubborn  # children do not hear SIGTERM
        self.spawns = spawns
        self.children: list[Child] = []
        self.watched: list[Watched] = []  # by a monitor that has not been cancelled
        self.tell: Callable[[Event], None] = lambda event: None  # by the latest monitor
        self._tell: dict[int, Callable[[Event], None]] = {}  # by each monitor's child
        self.busy: set[int] = set()
        self.log: list[tuple[object, ...]] = []
        self.faults: list[BaseException | None] = []  # of draftd's own: each test says how many it wants
        self.words: Sequence[str] = ()  # the last that a child said
        self.meanwhile: Callable[[], None] = lambda: None  # what happens while a child is being spawned
        self.gate = LoadGate(loads)
        self.ports = PortBook(8000, lambda port: port not in self.busy)
        self.services = Services(
            ports=self.ports,
            loads=self.gate,
            room=room or Room(10 * 10**9),
            memory=MemoryBook(10 * 10**9),
            starter=Starter(self.gate, lambda: None),
            session=cast(Any, None),
            base_env={"HOME": "/nowhere"},
            stop_grace=stop_grace,
            drain_timeout=NEVER,
            on_output=lambda name, chunk: self.log.append(("output", name, chunk)),
            on_record=lambda name, line: self.log.append(("record", name, line)),
            on_restart=lambda name, reason: self.log.append(("restart", name, reason)),
            on_change=lambda: self.log.append(("change",)),
            on_gone=lambda name: self.log.append(("gone", name)),
            tail=lambda name, count: self.words[-count:],
        )

    @property
    def alive(self) -> list[Child]:
        return [child for child in self.children if child.alive]

    @contextmanager
    def patched(self) -> Iterator[World]:
        with (
            patch.object(process.Child, "spawn", self.spawn),
            patch.object(children, "watch", self.watch),
            patch.object(process.log, "exception", lambda *_, **__: self.faults.append(sys.exception())),
        ):
            yield self

    async def spawn(self, argv: Sequence[str], env: object, **ears: Any) -> Child:
        self.meanwhile()
        if not self.spawns:
            raise FileNotFoundError(2, "no such file")
        child = Child(self, argv, pid=len(self.children) + 1, **ears)
        self.children.append(child)
        return child

    def tell_of(self, watched: Watched, event: Event) -> None:
        """What the monitor of this child reports."""
        self._tell[id(watched)](event)

    async def watch(self, watched: Watched, session: object, post: Callable[[Event], None]) -> None:
        self.tell = post
        self.watched.append(watched)
        self._tell[id(watched)] = post
        try:
            await asyncio.Event().wait()
        finally:
            self.watched.remove(watched)


@dataclass(eq=False)
class Child:
    """Stands in for process.Child."""

    world: World
    argv: Sequence[str]
    on_output: Callable[[bytes], None]
    on_exit: Callable[[], None]
    on_record: Callable[[bytes], None] | None = None
    pid: int = 0
    exit_code: int | None = None
    heard: list[str] = field(default_factory=list)  # the signals and the close
    shares: list[MemoryShare] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return self.exit_code is None

    @property
    def secret(self) -> str:
        return f"secret {self.pid}" if self.on_record else ""

    def limit_memory(self, share: MemoryShare) -> None:
        self.shares.append(share)

    def terminate(self) -> None:
        self.heard.append("term")
        if not self.world.stubborn:
            self.end()

    def kill_group(self) -> None:
        self.heard.append("kill")
        self.end()

    def end(self, code: int = -9) -> None:
        if self.alive:
            self.exit_code = code
            asyncio.get_running_loop().call_soon(self.on_exit)

    def close(self) -> None:
        assert not self.alive or self.heard[-1:] == ["kill"]
        self.heard.append("close")


async def settle() -> None:
    """Let the loop turn until nothing moves any more."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
