"""The composition root: builds every part, runs them, and takes them down in the right order.

`run` returns when the daemon was told to stop and nothing of it is left. A stop is: close the listener, let open
requests finish within the drain limit, end the workers, cut what is still open with an error event.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from draftd import __version__, clock
from draftd.errors import ConfigError
from draftd.instance import LOGS, Instance
from draftd.machine_memory import memory_budget, pressure
from draftd.peers.exposition import PeerCollector
from draftd.peers.fleet import Fleet
from draftd.peers.watch import Sessions, sessions
from draftd.peers.watch import run as watch_peers
from draftd.profile_files import fingerprint
from draftd.protocol import CacheSize
from draftd.reload import CurrentProfiles, Load, refusals_logged, watch
from draftd.settings import Settings
from draftd.telemetry.history import History
from draftd.telemetry.journal import Journal
from draftd.telemetry.logging_setup import telling
from draftd.telemetry.metrics import Metrics
from draftd.telemetry.output import DAEMON, Sink
from draftd.telemetry.prompt_caches import StoredPrompt
from draftd.telemetry.records import (
    DraftAcceptance,
    EngineProgress,
    EngineStarted,
    GenerationReport,
    ModelsLoaded,
    PromptProgress,
    Record,
    parse_record,
)
from draftd.telemetry.request_record import RequestRecord
from draftd.telemetry.told import Told, of_request
from draftd.web import dashboard
from draftd.web.api import Api
from draftd.web.beginnings import Beginnings
from draftd.web.benches import Benches
from draftd.web.body_reader import BodyReader
from draftd.web.captured import Captured
from draftd.web.client import Limits
from draftd.web.guard import Guard, make_guard
from draftd.web.listener import Listener
from draftd.web.live_feed import LiveFeed
from draftd.web.logs import Logs
from draftd.web.own_load import OwnLoad
from draftd.web.peer_relay import PeerRelay
from draftd.web.pipeline import Pipeline
from draftd.web.proxy import Proxy
from draftd.web.readable import Readable
from draftd.web.router import Router
from draftd.web.status_report import StatusReport
from draftd.workers import pressure_watch
from draftd.workers.health import worker_session
from draftd.workers.kernel_kills import KernelKills
from draftd.workers.memory_book import MemoryBook
from draftd.workers.resources import LoadGate, PortBook
from draftd.workers.room import Room
from draftd.workers.services import Services
from draftd.workers.supervisor import Supervisor
from draftd.workers.wakefulness import keep_awake
from draftd.workers.warm_spare import Starter

log = structlog.get_logger("daemon")

Beside = Callable[["Daemon"], Coroutine[Any, Any, None]]
OnEnded = Callable[[Sequence[RequestRecord]], None]  # called with requests that have ended


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
        stack.enter_context(telling(daemon.take_event))
        stack.push_async_callback(daemon.bodies.close)
        await stack.enter_async_context(tasks)
        stack.push_async_callback(daemon.benches.close)
        stack.push_async_callback(daemon.listener.close)
        await daemon.listener.open(settings.host, settings.port)
        instance.announce(settings.url, __version__)
        daemon.start()
        gc.collect()
        gc.freeze()  # what is here now stays: looking for garbage in it takes a tenth of the time under load
        log.info("draftd serves", url=settings.url, pid=os.getpid(), version=__version__)
        until_stopped = [
            tasks.create_task(beside(daemon)),
            tasks.create_task(watch(watched, known, daemon.try_reload)),
            tasks.create_task(daemon.feed.run()),
            tasks.create_task(daemon.history.run()),
            tasks.create_task(instance.keep()),
            tasks.create_task(watch_peers(daemon.fleet, reached)),
            tasks.create_task(pressure_watch.watch(daemon.pressure, daemon.room, daemon.kernel_kills)),
        ]
        if settings.warm_spare:
            until_stopped.append(tasks.create_task(daemon.starter.run()))
        if settings.keep_awake and shutil.which("caffeinate"):  # a Mac has it
            until_stopped.append(tasks.create_task(keep_awake(daemon.is_busy)))
        await daemon.until_stopped()
        for task in until_stopped:
            task.cancel()
        await daemon.shut_down()
    log.info("draftd has stopped")


class Daemon:
    """All parts of a daemon, and how they are connected. Made by `run`; `tasks` runs the workers.

    `budget`: bytes that all workers together may take. `reached`: the connections to peers, by their names.
    """

    def __init__(
        self,
        settings: Settings,
        load: Load,
        session: aiohttp.ClientSession,
        tasks: asyncio.TaskGroup,
        budget: int,
        reached: Mapping[str, Sessions],
        *,
        demo: bool,
    ) -> None:
        self.settings = settings
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._changed = asyncio.Event()
        self._news = asyncio.Event()  # for the live feed
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self.on_ended: list[OnEnded] = []
        self.journal = Journal(self._news.set, self._on_ended)
        self.metrics = Metrics(__version__, _version_of("mlx-lm"))
        self.sink = Sink(settings.state_dir / LOGS, self._on_report, self._acceptance_pattern, self.metrics)
        loads = LoadGate(settings.max_loads)
        self._loads = loads
        self.starter = Starter(loads, self._on_change)
        self.room = Room(budget, groups=settings.groups())
        self.kernel_kills = KernelKills()
        self.pressure = functools.partial(pressure, settings.memory_pressure)
        self.router = Router(load(), settings.default_profile)
        self.beginnings = Beginnings(self.router, settings.cache_preload, settings.prompt_store())
        services = self._services(session, loads, budget)
        self.supervisor = Supervisor(services, tasks, share=settings.share_engine is True)
        self.bodies = BodyReader()
        self.proxy = Proxy(
            self.router,
            self.supervisor,
            self.metrics,
            self.bodies,
            settings.keepalive_interval,
            self.journal,
            self.beginnings,
        )
        self.fleet = Fleet(settings.peers, self._on_peers)
        self.load = OwnLoad(
            router=self.router,
            supervisor=self.supervisor,
            proxy=self.proxy,
            id=self.fleet.id,
            keepalive=settings.keepalive_interval,
        )
        if settings.peers:
            self.proxy.peers = PeerRelay(
                self.fleet, reached, self.load.of, self.proxy.relay, self.journal.note
            )
            self.metrics.add(PeerCollector(self.fleet))
        self.profiles = CurrentProfiles(load, self.router, self.supervisor, self.proxy, self.metrics)
        self.benches = self._benches(tasks, demo=demo)
        self.report = StatusReport(
            supervisor=self.supervisor,
            router=self.router,
            proxy=self.proxy,
            metrics=self.metrics,
            starter=self.starter,
            started=time.time(),
            budget=budget,
            look_at_pressure=self.pressure,
            store=settings.prompt_store(),
            reload_problem=lambda: self.profiles.problem,
            fleet=self.fleet,
            profiles_read=lambda: self.profiles.read_at,
            bench=self.benches.progress,
            captures=lambda: self.journal.contents.on,
        )
        self.feed = LiveFeed(self.report.live, self.sink.log, self.journal, self._news)
        self.history = History(self.report.levels, time.time)
        self.listener = self._listener()
        self.metrics.bind(
            self.report.samples, self.report.spare_memory, self.report.pressure, self.report.stored_prompts
        )

    def _services(self, session: aiohttp.ClientSession, loads: LoadGate, budget: int) -> Services:
        ports = PortBook(self.settings.base_port)
        ports.reserve("", self.settings.port)  # the proxy's own
        return Services(
            ports=ports,
            loads=loads,
            room=self.room,
            memory=MemoryBook(budget),
            starter=self.starter,
            session=session,
            base_env=os.environ,
            stop_grace=self.settings.stop_grace,
            drain_timeout=self.settings.drain_timeout,
            on_output=self._on_output,
            on_record=self._on_record,
            on_restart=self.metrics.restarted,
            on_change=self._on_change,
            on_gone=self._on_gone,
            tail=self.sink.last_words,
            prompt_store=self.settings.prompt_store(),
            kernel_kills=self.kernel_kills,
            beginnings=self.beginnings.of,
        )

    def _benches(self, tasks: asyncio.TaskGroup, *, demo: bool) -> Benches:
        models = ["--demo"] if demo else ["--profiles", str(self.settings.profiles_dir())]
        folders = ["--state-dir", str(self.settings.state_dir)]
        command = [sys.executable, "-m", "draftd", "bench", "--json-lines", *models, *folders]
        free = lambda: self.report.free_memory()  # noqa: E731, PLW0108 - it is made later
        return Benches(command, self.router, tasks, self._news.set, free, has_models=demo)

    def _listener(self) -> Listener:
        settings = self.settings
        limits = Limits(
            max_body=settings.max_body_bytes,
            body=settings.body_timeout,
            write=settings.write_timeout,
            idle=settings.connection_timeout,
        )
        api = Api(
            report=self.report,
            router=self.router,
            supervisor=self.supervisor,
            metrics=self.metrics,
            journal=self.journal,
            history=self.history,
            reload=self.reload,
        )
        logs = Logs(router=self.router, supervisor=self.supervisor, sink=self.sink)
        readable = Readable(self.router, settings.prompt_dirs(), lambda: self.profiles.problem)
        captured = Captured(self.journal.contents, self._news.set)
        pipeline = Pipeline(self.proxy, _guard(settings), self.metrics, limits, self.journal)
        return Listener(
            pipeline,
            [
                route
                for part in (api, self.load, logs, readable, captured, self.benches, self.feed, dashboard)
                for route in part.routes()
            ],
            limits,
        )

    @property
    def url(self) -> str:
        """Where clients on this machine find the daemon."""
        return self.settings.url

    @property
    def default_model(self) -> str:
        """The profile that answers a request without a model; empty if there is none."""
        default = self.router.table.default
        return default.name if default else ""

    def workers(self) -> list[dict[str, Any]]:
        """Every profile's worker as /api/status has it."""
        return self.report.workers()

    def is_busy(self) -> bool:
        """Whether requests are open, or models load."""
        return self.proxy.open_requests > 0 or not self._loads.idle

    async def until_changed(self) -> None:
        """Return at the next change of any worker's state."""
        await self._changed.wait()

    async def until_stopped(self) -> None:
        """Return when `stop` was called."""
        await self._stop.wait()

    def stop(self) -> None:
        """Stop in good order; a second call stops at once."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    def start(self) -> None:
        """Start the workers of the profiles that the daemon was made with."""
        self.profiles.apply(self.router.table.profiles)

    def reload(self) -> list[str]:
        """Read the profiles again: all are taken or none. Returns what changed. Raises ConfigError."""
        if self._stop.is_set():
            raise ConfigError("draftd is stopping")
        try:
            return self.profiles.reload()
        finally:
            self._news.set()

    def try_reload(self) -> None:
        """Reload, and only log it if that is refused."""
        with refusals_logged():
            self.reload()

    async def shut_down(self) -> None:
        """Take nothing new, let open requests finish as long as they may, and end the workers."""
        limit = self.settings.drain_timeout
        log.info("draftd stops", open_requests=self.proxy.open_requests, drain_timeout=limit)
        self.listener.stop_listening()
        self.proxy.refuse_new()
        ended = asyncio.create_task(self._stop_now.wait())
        drained = asyncio.create_task(self.proxy.until_idle())
        await clock.wait({ended, drained}, limit, first=True)
        for task in (ended, drained):
            task.cancel()
        self.proxy.cut_off()
        await self.supervisor.close(drain=0.0)

    # --- called by the parts ----------------------------------------------------------------------------------

    def take_event(self, told: Told) -> None:
        """Keep an event of the daemon's log with the logs, whatever thread it comes from."""
        if threading.get_ident() == self._thread:
            self.sink.note_event(told.who, told.text, told.line)
        else:
            self._loop.call_soon_threadsafe(self.take_event, told)

    def _on_ended(self, records: Sequence[RequestRecord]) -> None:
        lines: dict[str, list[str]] = {}
        for record in records:
            self.history.add(record)
            told = of_request(record)
            lines.setdefault(told.who or DAEMON, []).append(told.text)
        for who, texts in lines.items():
            self.sink.note(who, "\n".join(texts))
        for listener in self.on_ended:
            listener(records)

    def _on_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._news.set()

    def _acceptance_pattern(self, worker: str) -> re.Pattern[str] | None:
        return self.supervisor.acceptance_pattern(worker)

    def _on_peers(self) -> None:
        """A peer comes or goes, or has other models."""
        models, before = self.fleet.models(), self.router.table.elsewhere
        self.router.replace_peers(models)
        after = self.router.table.elsewhere
        for name in before.keys() - after.keys() - self.router.table.profiles.profiles.keys():
            self.metrics.retire(name)
        for name in after:
            self.metrics.declare(name)
        self._news.set()

    def _on_gone(self, name: str) -> None:
        """A removed profile's last request has ended, and its worker is gone."""
        self.metrics.retire(name)
        self.sink.forget(name)
        self._on_peers()  # one of them may have the model still
        self._on_change()

    def _on_output(self, name: str, chunk: bytes) -> None:
        self.sink.feed(name, chunk)
        self._news.set()

    def _on_record(self, worker: str, line: bytes) -> None:
        if (record := parse_record(line)) is not None:
            self._on_report(worker, record)
        self._news.set()

    def _on_report(self, worker: str, record: Record) -> None:
        match record:
            case EngineStarted():
                self.supervisor.engine_started(worker, accounting=record.accounting)
            case ModelsLoaded():
                self.supervisor.models_loaded(worker, record.refusal, record.target.batch)
            case CacheSize():
                self.supervisor.cache_size(worker, record)
            case StoredPrompt():
                self.metrics.record(worker, record)
            case DraftAcceptance() | GenerationReport():
                self.metrics.record(self.supervisor.whose(worker, record.profile), record)
        if isinstance(record, EngineProgress | GenerationReport | PromptProgress):
            memory = None if isinstance(record, PromptProgress) else record.memory
            self.supervisor.progress(worker, memory.active + memory.cache if memory else None)


def _guard(settings: Settings) -> Guard:
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    return make_guard(settings.host, settings.allowed_hosts, settings.allowed_origins, key)


def _version_of(package: str) -> str:
    with suppress(PackageNotFoundError):
        return version(package)
    return "not installed"
