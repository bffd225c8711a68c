"""Starts the workers' children, by a warm spare where there is one that fits (the rules are in spare.py).

Theory of operation. `run` is a task that makes spares, one after the other, and looks after each until it has
ended or is taken. `start` is called by the workers' tasks; it takes the spare or has it killed, and clears
`_spare` before it awaits anything, so that two starts never take the same. A start does not fail because of the
spare: whatever is wrong with it, the child is started anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from draftd.workers.process import Child
from draftd.workers.resources import LoadGate
from draftd.workers.spare import QUIET, SpareStatus, Use, flags_of, use_of
from draftd.workers.spare_child import SpareChild

log = structlog.get_logger("spare")

LAST_WORDS = 500  # bytes of what a spare said that are logged when it dies
Environment = Callable[[], Mapping[str, str]]
OnOutput = Callable[[bytes], None]
OnExit = Callable[[], None]


class Starter:
    """See the module. `loads` knows when no worker loads; without `run` every start is a cold one."""

    def __init__(self, loads: LoadGate, on_change: Callable[[], None], quiet: float = QUIET) -> None:
        self._loads = loads
        self._on_change = on_change
        self._quiet = quiet
        self._environment: Environment = dict
        self._wanted = asyncio.Event()
        self._spare: SpareChild | None = None

    async def start(
        self, argv: Sequence[str], environment: Environment, *, on_output: OnOutput, on_exit: OnExit
    ) -> Child:
        """As Child.spawn, or by the spare. `environment` is asked now, and again for the next spare, when the
        weights may be on this machine that were not yet. Raises OSError.
        """
        env = environment()
        child = await self._from_spare(argv, env, on_output, on_exit)
        if child is None:
            child = await Child.spawn(argv, env, on_output=on_output, on_exit=on_exit)
        if flags_of(argv) is not None:
            self._environment = environment
            self._wanted.set()
        return child

    async def _from_spare(
        self, argv: Sequence[str], env: Mapping[str, str], on_output: OnOutput, on_exit: OnExit
    ) -> Child | None:
        spare = self._spare
        if spare is None or (use := use_of(spare.env, argv, env, warm=spare.warm)) is Use.KEEP:
            return None
        self._spare = None
        self._wanted.set()
        child = None
        try:
            if use is Use.TAKE:
                child = await spare.give(flags_of(argv) or (), on_output, on_exit)
                outcome = "the warm spare is taken" if child else "the warm spare did not answer"
                log.info(outcome, pid=spare.pid)
        finally:
            spare.kill()
        return child

    def status(self) -> SpareStatus | None:
        """The spare now; None if there is none."""
        return self._spare.status() if self._spare else None

    async def run(self) -> None:
        """Keep a spare, until cancelled: then it has ended."""
        while True:
            await self._wanted.wait()
            await self._until_quiet()
            self._wanted.clear()
            try:
                spare = await SpareChild.spawn(self._environment())
            except OSError as error:
                log.warning("the warm spare could not be started", reason=str(error))
                continue
            try:
                await self._look_after(spare)
            finally:
                self._spare = None
                await spare.close()
                self._on_change()

    async def _until_quiet(self) -> None:
        while True:
            idle = asyncio.Event()
            self._loads.when_idle(idle.set)
            await idle.wait()
            await asyncio.sleep(self._quiet)
            if self._loads.idle:
                return

    async def _look_after(self, spare: SpareChild) -> None:
        """Return when it has ended or was taken."""
        if not self._loads.idle:  # a start came while it was spawned, and did not see it
            self._wanted.set()
            return
        self._spare = spare
        self._on_change()
        await spare.until_warm()
        if spare.warm:
            log.info("the warm spare waits", pid=spare.pid)
            self._on_change()
        await spare.over.wait()
        if self._spare is spare:
            words = spare.output[-LAST_WORDS:].decode(errors="replace")
            log.warning("the warm spare has died", code=spare.exit_code, said=words)
