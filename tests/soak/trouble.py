"""What goes wrong during the soak: workers killed and stopped at random, profiles changed, good and bad."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import suppress
from random import Random

from tests.soak.running import Running, profile

# Failures are forgotten soon: the soak is about crashes, not about giving up after many.
TABLES = """
[restart]
initial_delay = 0.2
max_delay = 0.5
max_failures = 1000
window = 5
[health]
interval = 1
timeout = 1
"""
NAMES = ("one", "two")
LENGTHS = (3, 5)
ALIAS = "other"  # a name that comes and goes


def profiles() -> dict[str, str]:
    """What the soak starts with."""
    return {name: profile(length, tables=TABLES) for name, length in zip(NAMES, LENGTHS, strict=True)}


class Trouble:
    """Makes trouble, and counts it: `made` says how often which kind."""

    def __init__(self, daemon: Running, random: Random) -> None:
        self.made: Counter[str] = Counter()
        self._daemon = daemon
        self._random = random
        self._lengths = dict(zip(NAMES, LENGTHS, strict=True))
        self._alias = False

    async def make(self, over: asyncio.Event, pause: tuple[float, float]) -> None:
        """One trouble after each pause, whose bounds are in seconds, until it is `over`; then all is put right."""
        kinds = {"killed": 6, "hung": 1, "alias": 2, "flags": 2, "bad profile": 1}
        while not await _happens(over, self._random.uniform(*pause)):
            [kind] = self._random.choices(list(kinds), list(kinds.values()))
            self.made[kind] += await self._do(kind, self._random.choice(NAMES))
        (self._daemon.folder / "profiles" / "bad.toml").unlink(missing_ok=True)

    async def _do(self, kind: str, name: str) -> bool:
        """Returns whether there was something to do it to."""
        match kind:
            case "killed":
                return await self._signal(name, signal.SIGKILL)
            case "hung":
                return await self._signal(name, signal.SIGSTOP)
            case "alias":
                self._alias = not self._alias
                self._write(NAMES[0])
            case "flags":
                self._lengths[name] = 8 - self._lengths[name]  # 3 and 5 in turn
                self._write(name)
            case "bad profile":
                bad = self._daemon.folder / "profiles" / "bad.toml"
                bad.unlink() if bad.exists() else self._daemon.write("bad", "model = 1\n")
        return True

    async def _signal(self, name: str, number: signal.Signals) -> bool:
        pids = {row["name"]: row["pid"] for row in await self._daemon.rows()}
        if pids[name] is None:
            return False
        try:
            os.killpg(pids[name], number)
        except ProcessLookupError:  # it has just been ended
            return False
        return True

    def _write(self, name: str) -> None:
        top = f'aliases = ["{ALIAS}"]' if self._alias and name == NAMES[0] else ""
        self._daemon.write(name, profile(self._lengths[name], top=top, tables=TABLES))


async def _happens(event: asyncio.Event, limit: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(limit):
            await event.wait()
    return event.is_set()
