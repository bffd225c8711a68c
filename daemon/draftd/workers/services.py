"""What the workers of one daemon share, handed to each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from draftd.hub import are_here
from draftd.profiles import Profile
from draftd.workers import command
from draftd.workers.resources import LoadGate, PortBook
from draftd.workers.warm_spare import Starter


@dataclass(frozen=True, slots=True)
class Services:
    """Times are in seconds. `on_output(name, bytes)` and `on_record(name, line)`, for what an engine reports, are
    called in the event loop, so they must be quick.
    """

    ports: PortBook
    loads: LoadGate
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

    def environment(self, profile: Profile) -> dict[str, str]:
        """The environment of a child that serves `profile`; it depends on which models are here by now."""
        return command.environment(self.base_env, offline=are_here(profile.files, self.base_env))
