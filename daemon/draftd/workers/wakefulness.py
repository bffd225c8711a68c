"""Keeps a Mac from falling asleep while there is work: it would stop in the middle of an answer, or of a load.

`caffeinate` holds the assertion, and ends by itself when the daemon has ended, for whatever reason. It only
prevents idle sleep: closing the lid, or a person who says so, sends the machine to sleep as ever.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from draftd import clock

log = structlog.get_logger("daemon")

LOOK = 1.0  # seconds between looks at whether there is work
LINGER = (
    10.0  # seconds without work after which the machine may sleep: not each request has a process of its own
)
MAX_END = 1.0  # seconds


async def keep_awake(is_busy: Callable[[], bool], look: float = LOOK, linger: float = LINGER) -> None:
    """Hold the assertion whenever `is_busy` says so, until cancelled. Returns early if that is not possible."""
    held: asyncio.subprocess.Process | None = None
    busy_at = 0.0
    told: str | None = None
    try:
        while True:
            if is_busy():
                busy_at = time.monotonic()
                if held is None or held.returncode is not None:
                    held = None
                    try:
                        held = await _hold()
                    except (FileNotFoundError, PermissionError) as error:
                        _tell(error)
                        return
                    except (
                        OSError
                    ) as error:  # of descriptors or processes, say, of which there may be more soon
                        if error.strerror != told:
                            _tell(error)
                        told = error.strerror
            elif held is not None and time.monotonic() - busy_at >= linger:
                await _let_go(held)
                held = None
            await asyncio.sleep(look)
    finally:
        if held is not None:
            await _let_go(held)


def _tell(error: OSError) -> None:
    log.warning("the machine may fall asleep while it works", reason=f"caffeinate: {error.strerror}")


async def _hold() -> asyncio.subprocess.Process:
    """Raises OSError."""
    return await asyncio.create_subprocess_exec(
        *("caffeinate", "-i", "-w", str(os.getpid())),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that Ctrl-C does not end it before the open requests
    )


async def _let_go(held: asyncio.subprocess.Process) -> None:
    """End it, by force if it does not listen: the daemon's own stop waits for this."""
    with suppress(ProcessLookupError):
        held.terminate()
        with suppress(TimeoutError):
            async with clock.limit(MAX_END):
                await held.wait()
                return
        held.kill()
    await held.wait()
