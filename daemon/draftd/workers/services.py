"""What the workers of one daemon share, handed to each of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from draftd import first_start
from draftd.hub import are_here
from draftd.profiles import Profile
from draftd.protocol import PromptStore
from draftd.workers import command
from draftd.workers.beginning import Beginning
from draftd.workers.kernel_kills import KernelKills
from draftd.workers.memory_book import MemoryBook
from draftd.workers.process import Child
from draftd.workers.resources import LoadGate, PortBook
from draftd.workers.room import Room
from draftd.workers.warm_spare import Starter


@dataclass(frozen=True, slots=True)
class Services:
    """Times are in seconds. `on_output(name, bytes)` and `on_record(name, line)`, for what an engine reports, are
    called in the event loop, so they must be quick. `beginnings` gives what requests to these profiles begin with.
    """

    ports: PortBook
    loads: LoadGate
    room: Room
    memory: MemoryBook
    starter: Starter
    session: aiohttp.ClientSession
    base_env: Mapping[str, str]
    stop_grace: float
    drain_timeout: float
    on_output: Callable[[str, bytes], None]
    on_record: Callable[[str, bytes], None]
    on_restart: Callable[[str, str], None]
    on_change: Callable[[], None]
    on_gone: Callable[[str], None]
    tail: Callable[[str, int], Sequence[str]]
    prompt_store: PromptStore | None = None
    beginnings: Callable[[Sequence[str]], Sequence[Beginning]] = lambda names: ()
    kernel_kills: KernelKills = field(default_factory=KernelKills)

    def is_short_of_memory(self) -> bool:
        """Whether the system seems to have killed a process just now because memory was short."""
        grown = self.kernel_kills.has_grown()
        return bool(self.room.strained) if grown is None else grown

    def environment(self, profile: Profile) -> dict[str, str]:
        """The environment of a child that serves `profile`; it depends on which models are here by now."""
        return command.environment(
            self.base_env,
            offline=are_here(profile.files, self.base_env),
            store=None if profile.command or profile.distributed else self.prompt_store,
            group=command.group_plan(profile),
        )

    def need(self, profile: Profile) -> int | None:
        """Bytes that a worker of this profile will take; None if nobody knows.

        One whose weights fit is not refused for want of a long context: it may have the whole budget to itself.
        """
        size = None if profile.command else first_start.need(profile, self.base_env)
        if size is None:
            return None
        return min(size, max(self.room.budget, first_start.weights_here(profile, self.base_env) or 0))

    def share_memory(self, owner: Hashable, profile: Profile, child: Child) -> None:
        """Give an engine that serves `profile` its share, and tell it. A foreign server takes what it takes."""
        if not profile.command:
            weights = first_start.weights_here(profile, self.base_env)
            self.memory.take(owner, weights, profile.server.prompt_cache_bytes, child.limit_memory)
