"""Watches how short of memory the machine is, and tells the room, whose budget the workers share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from draftd.pressure import Pressure
from draftd.workers.kernel_kills import KernelKills
from draftd.workers.room import Room

log = structlog.get_logger("room")

LOOK_EVERY = 1.0  # seconds


async def watch(look: Callable[[], Pressure | None], room: Room, kills: KernelKills) -> None:
    """Look again and again, until cancelled. Where the system does not say, memory is not short."""
    known = Pressure.NORMAL
    while True:
        kills.refresh()
        found = look() or Pressure.NORMAL
        if found is not known:
            write = log.warning if found > known else log.info
            write("the pressure on the machine's memory has changed", pressure=found.name.lower())
            known = found
            room.feels(found)
        await asyncio.sleep(LOOK_EVERY)
