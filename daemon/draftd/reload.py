"""The profiles that are in force, and how new ones take their place: all of them or none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from draftd.errors import ConfigError
from draftd.profiles import ProfileSet
from draftd.telemetry.metrics import Metrics
from draftd.web.proxy import Proxy
from draftd.web.router import Router
from draftd.workers.supervisor import Supervisor

log = structlog.get_logger("daemon")

LOOK_AGAIN = 1.0  # seconds between looks at the profiles
SETTLE = 0.25  # seconds until the next look once something has changed

Load = Callable[[], ProfileSet]


class CurrentProfiles:
    """`load` reads the profiles. The other parts are told which ones are in force.

    `problem` says why the files on disk are not in force; None if they are. `read_at`: when they were read, in
    epoch seconds.
    """

    def __init__(
        self, load: Load, router: Router, supervisor: Supervisor, proxy: Proxy, metrics: Metrics
    ) -> None:
        self._load = load
        self._router = router
        self._supervisor = supervisor
        self._proxy = proxy
        self._metrics = metrics
        self.problem: str | None = None
        self.read_at = time.time()

    def reload(self) -> list[str]:
        """Read them again. Returns what changed. Raises ConfigError, and nothing has changed then."""
        self.read_at = time.time()
        try:
            profiles = self._load()
        except ConfigError as error:
            self.problem = str(error)
            raise
        self.problem = None
        changed = self.apply(profiles)
        self._router.replace(profiles)
        self._proxy.refresh()
        return changed

    def apply(self, profiles: ProfileSet) -> list[str]:
        """Make workers serve these. Returns what changed."""
        for name in profiles.profiles:
            self._metrics.declare(name)
        return self._supervisor.apply(profiles.profiles)


@contextmanager
def refusals_logged() -> Iterator[None]:
    """Only log it if a reload is refused."""
    try:
        yield
    except (ConfigError, OSError) as error:
        lines = str(error).split("\n")
        log.error("reload refused; the old profiles stay in force", reason=lines)  # noqa: TRY400


Look = Callable[[], tuple[object, ...]]


async def watch(look: Look, known: tuple[object, ...], reload: Callable[[], None]) -> None:
    """Call `reload` when files have changed, until cancelled. `known` is how they looked when they were read."""
    seen = known
    while True:
        await asyncio.sleep(LOOK_AGAIN if seen == known else SETTLE)
        before, seen = seen, await asyncio.to_thread(look)
        if seen == before != known:  # two looks agree: nobody is in the middle of a change
            known = seen
            reload()
