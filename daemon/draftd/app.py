"""Runs a daemon: makes its parts, starts them, and takes them down in the right order.

`run` returns when the daemon was told to stop and nothing of it is left. A stop is: close the listener, let open
requests finish within the drain limit, end the workers, cut what is still open with an error event.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from draftd import __version__
from draftd.daemon import Daemon
from draftd.errors import DraftdError
from draftd.instance import Instance
from draftd.machine_memory import memory_budget
from draftd.peers.watch import Sessions, sessions
from draftd.peers.watch import run as watch_peers
from draftd.profile_files import fingerprint
from draftd.reload import Load, watch
from draftd.settings import Settings
from draftd.sudden_end import WORDS, stacks, stacks_kept
from draftd.telemetry.logging_setup import telling
from draftd.workers import pressure_watch
from draftd.workers.health import worker_session
from draftd.workers.process import contained
from draftd.workers.wakefulness import keep_awake

log = structlog.get_logger("daemon")

Work = Callable[[], Coroutine[Any, Any, None]]
Beside = Callable[[Daemon], Coroutine[Any, Any, None]]
AGAIN = 1.0  # seconds after which work that failed is taken up again


async def run(
    settings: Settings,
    load: Load,
    beside: Beside,
    *,
    watched: tuple[Path, ...] = (),
    demo: bool = False,
) -> None:
    """Serve until told to stop. Raises DraftdError if the daemon cannot start.

    `load` reads the profiles, at the start and at each reload, and may raise ConfigError; a change in the folders
    `watched` is a reload too. `beside` is called with the daemon as soon as it serves, and cancelled when it stops.
    With `demo` the models are the built-in ones.
    """
    async with AsyncExitStack() as stack:
        instance = stack.enter_context(Instance(settings.state_dir))
        session = await stack.enter_async_context(worker_session())
        tasks = asyncio.TaskGroup()
        known = fingerprint(watched)
        budget = await asyncio.to_thread(memory_budget, settings.memory_budget)
        reached = await stack.enter_async_context(sessions(settings.peers))
        daemon = Daemon(settings, load, session, tasks, budget, reached, demo=demo)
        stack.callback(daemon.sink.close)
        stack.callback(daemon.journal.tell)
        stack.enter_context(telling(daemon.chronicle.take_event))
        stack.push_async_callback(daemon.bodies.close)
        await stack.enter_async_context(tasks)
        stack.push_async_callback(daemon.benches.close)
        stack.push_async_callback(daemon.listener.close)
        await daemon.listener.open(settings.host, settings.port)
        _tell_of_earlier(instance, settings.state_dir)
        _announce(instance, daemon)
        if daemon.tls:
            daemon.tls.on_renewal.append(partial(_announce_again, instance, daemon))
        stack.enter_context(stacks_kept(settings.state_dir))
        daemon.start()
        gc.collect()
        gc.freeze()  # what is here now stays: looking for garbage in it takes a tenth of the time under load
        log.info("draftd serves", url=daemon.url, pid=os.getpid(), version=__version__)
        works: list[Work] = [
            daemon.feed.run,
            daemon.history.run,
            instance.keep,
            partial(watch_peers, daemon.fleet, reached),
            partial(pressure_watch.watch, daemon.pressure, daemon.room, daemon.kernel_kills),
        ]
        if settings.warm_spare:
            works.append(daemon.starter.run)
        if settings.keep_awake and shutil.which("caffeinate"):  # a Mac has it
            works.append(partial(keep_awake, daemon.is_busy))
        if watched:
            works.append(partial(watch, partial(fingerprint, watched), known, daemon.try_reload))
        if daemon.tls:
            works.append(partial(watch, daemon.tls.look, daemon.tls.read, daemon.try_renew))
        works += _announcing(settings, daemon)
        until_stopped = [tasks.create_task(work) for work in (beside(daemon), *map(_going_on, works))]
        until_drained = [tasks.create_task(_going_on(work)) for work in _finding(settings, daemon, reached)]
        await daemon.until_stopped()
        for task in until_stopped:
            task.cancel()
        await daemon.shut_down()
        for task in until_drained:
            task.cancel()
    log.info("draftd has stopped")


def _announce(instance: Instance, daemon: Daemon) -> None:
    """Write down where the daemon answers, and with which certificate. Raises ConfigError."""
    instance.announce(daemon.settings.url, __version__, daemon.url, daemon.certificate)


def _announce_again(instance: Instance, daemon: Daemon) -> None:
    try:
        _announce(instance, daemon)
    except DraftdError as error:
        log.warning("draftd's own commands do not know the new certificate", reason=str(error))


def _announcing(settings: Settings, daemon: Daemon) -> list[Work]:
    """What lets other machines find this one."""
    if not settings.discovery_announce or (tls := daemon.tls) is None:
        return []
    from draftd.peers.discovery import announce

    async def under_its_names() -> None:
        while True:
            names = tls.certificate.names
            work = announce(daemon.fleet.id, names, settings.host, settings.port)
            announcing = asyncio.create_task(work)
            renamed = asyncio.create_task(tls.until_other_names(names))
            try:
                await asyncio.wait((announcing, renamed), return_when=asyncio.FIRST_COMPLETED)
                if announcing.done():
                    announcing.result()
            finally:
                for task in (announcing, renamed):
                    task.cancel()
                await asyncio.wait((announcing, renamed))

    return [under_its_names]


def _finding(settings: Settings, daemon: Daemon, reached: dict[str, Sessions]) -> list[Work]:
    """What finds other machines. It has the connections to them, and so goes on until their last answers have come.

    Raises ConfigError.
    """
    if not settings.discovery_find:
        return []
    from draftd.peers.discovery import find, trust

    return [partial(find, daemon.fleet, reached, trust(settings))]


async def _going_on(work: Work) -> None:
    """Do it, and again after an exception that nobody foresaw: neither clients nor workers are to lose by that."""
    while True:
        with contained(""):
            await work()
            return
        if (task := asyncio.current_task()) and task.cancelling():
            return  # it failed as it was cancelled, which nobody does a second time
        await asyncio.sleep(AGAIN)


def _tell_of_earlier(instance: Instance, state_dir: Path) -> None:
    if earlier := instance.earlier():
        crash = {"exception": found} if (found := stacks(state_dir)) else {}
        log.warning(
            "the daemon before this one could not stop in order", pid=earlier.pid, reason=WORDS, **crash
        )
