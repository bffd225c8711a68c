"""What the workers of one daemon share, handed to each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from draftd.workers.resources import LoadGate, PortBook
from draftd.workers.warm_spare import Starter


@dataclass(frozen=True, slots=True)
class Services:
    """What all workers share. `on_output(name, bytes)` must be quick: it runs in the event loop."""

    ports: PortBook
    loads: LoadGate
    starter: Starter
    session: aiohttp.ClientSession
    base_env: Mapping[str, str]
    stop_grace: float
    drain_timeout: float
    on_output: Callable[[str, bytes], None]
    on_restart: Callable[[str, str], None]
    on_change: Callable[[], None]
    on_gone: Callable[[str], None]
    tail: Callable[[str, int], Sequence[str]]
