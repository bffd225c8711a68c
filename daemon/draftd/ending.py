"""How a daemon ends: in good order, or at once if it is told twice."""

from __future__ import annotations

import asyncio

import structlog

from draftd import clock
from draftd.web.listener import Listener
from draftd.web.proxy import Proxy
from draftd.workers.supervisor import Supervisor

log = structlog.get_logger("daemon")


class Ending:
    """Whether a daemon is to stop, and why. Open requests have `drain_timeout` seconds to finish then."""

    def __init__(self, drain_timeout: float) -> None:
        self._drain_timeout = drain_timeout
        self._begun = asyncio.Event()
        self._at_once = asyncio.Event()
        self._reason = ""  # in words; "" if none was given

    @property
    def has_begun(self) -> bool:
        """Whether the daemon is stopping."""
        return self._begun.is_set()

    def begin(self, reason: str = "") -> None:
        """Stop; a second call waits for no request any more. The first `reason` is the one that is logged."""
        if self._begun.is_set():
            self._at_once.set()
        self._begun.set()
        self._reason = self._reason or reason

    async def until_begun(self) -> None:
        """Return when the daemon is to stop."""
        await self._begun.wait()

    async def carry_out(self, listener: Listener, proxy: Proxy, supervisor: Supervisor) -> None:
        """Take nothing new, let open requests finish as long as they may, and end the workers."""
        log.info(
            "draftd stops",
            open_requests=proxy.open_requests,
            drain_timeout=self._drain_timeout,
            because=self._reason,
        )
        listener.stop_listening()
        proxy.refuse_new()
        told = asyncio.create_task(self._at_once.wait())
        drained = asyncio.create_task(proxy.until_idle())
        await clock.wait({told, drained}, self._drain_timeout, first=True)
        for task in (told, drained):
            task.cancel()
        proxy.cut_off()
        await supervisor.close(drain=0.0)
