"""The composition root: builds every part, runs them, and takes them down in the right order.

`run` returns when the daemon has been told to stop and nothing of it is left. A stop is: close the listener,
let open requests finish within the drain limit, end the workers, cut what is still open with an error event.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import aiohttp
import structlog
import watchfiles

from draftd import __version__
from draftd.errors import ConfigError, DraftdError
from draftd.instance import Instance
from draftd.profiles import ProfileSet
from draftd.settings import Settings
from draftd.sockets import holder_of
from draftd.telemetry.metrics import Metrics, WorkerSample
from draftd.telemetry.output import Sink
from draftd.telemetry.records import (
    DraftAcceptance,
    EngineProgress,
    EngineStarted,
    GenerationReport,
    PromptProgress,
    Record,
)
from draftd.web.api import Api
from draftd.web.client import Limits
from draftd.web.guard import make_guard
from draftd.web.listener import FrontDoor
from draftd.web.live_feed import EventStream
from draftd.web.proxy import Proxy
from draftd.web.router import Router
from draftd.workers.resources import LoadGate, PortBook
from draftd.workers.services import Services
from draftd.workers.supervisor import Supervisor
from draftd.workers.warm_spare import Starter

log = structlog.get_logger("daemon")

Load = Callable[[], ProfileSet]


class Daemon:
    """One daemon. `load` reads the profiles, at the start and at each reload, and may raise ConfigError;
    a change in the folders `watched`, which must exist, is a reload too.
    """

    def __init__(self, settings: Settings, load: Load, *, watched: tuple[Path, ...] = ()) -> None:
        self.settings = settings
        self._load = load
        self._watched = watched
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._changed = asyncio.Event()
        self._serving = asyncio.Event()
        self._router = Router(load(), settings.default_profile)
        self._metrics = Metrics(__version__, _version_of("mlx-lm"))
        self._sink = Sink(settings.state_dir / "logs", self._on_record, self._metrics)
        self._supervisor: Supervisor | None = None
        self._proxy: Proxy | None = None
        self._api: Api | None = None
        self._events = EventStream(self._live, self._sink.log, settings.write_timeout)

    @property
    def url(self) -> str:
        """Where clients on this machine find the daemon."""
        return self.settings.url

    @property
    def default_model(self) -> str:
        """The profile that answers a request without a model; empty if there is none."""
        return self._router.default.name if self._router.default else ""

    def workers(self) -> list[dict[str, Any]]:
        """Every worker as /api/status tells it; empty before the start."""
        return self._api.workers() if self._api else []

    async def until_serving(self) -> None:
        """Return when the front door is open and the workers are known."""
        await self._serving.wait()

    async def until_changed(self) -> None:
        """Return at the next change of any worker's state."""
        await self._changed.wait()

    def stop(self) -> None:
        """Stop in good order; a second call stops at once."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    def reload(self) -> list[str]:
        """Read the profiles again: all are taken or none. Returns what changed. Raises ConfigError."""
        if self._supervisor is None or self._proxy is None or self._stop.is_set():
            raise ConfigError("draftd is starting or stopping; it reads the profiles when it starts")
        profiles = self._load()
        for name in profiles.profiles:
            self._metrics.declare(name)
        changed = self._supervisor.apply(profiles.profiles)
        self._router = Router(profiles, self.settings.default_profile)
        self._proxy.refresh()
        return changed

    async def run(self) -> None:
        """Serve until told to stop. Raises DraftdError if it cannot start."""
        guard = make_guard(
            self.settings.host,
            self.settings.allowed_hosts,
            self.settings.allowed_origins,
            self.settings.api_key.get_secret_value() if self.settings.api_key else "",
        )
        async with AsyncExitStack() as stack:
            instance = stack.enter_context(Instance(self.settings.state_dir))
            stack.callback(self._sink.close)
            session = await stack.enter_async_context(_worker_session())
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            loads = LoadGate(self.settings.max_loads)
            starter = Starter(loads, self._tell_change)
            services = self._services(session, loads, starter)
            self._supervisor = supervisor = Supervisor(services, tasks, share=self.settings.share_engine)
            self._proxy = proxy = Proxy(
                lambda: self._router,
                supervisor,
                self._metrics,
                self.settings.keepalive_interval,
                self._events.tell,
            )
            self._metrics.bind(lambda: _samples(supervisor, proxy), lambda: _memory_of(starter))
            self._api = api = Api(
                supervisor,
                lambda: self._router,
                proxy,
                self._metrics,
                self._sink.log,
                self.reload,
                self._events,
                time.time(),
                starter.status,
            )
            door = FrontDoor(
                api,
                proxy,
                guard,
                self._metrics,
                self._limits(),
                max_body=self.settings.max_body_bytes,
                idle_timeout=self.settings.connection_timeout,
            )
            stack.push_async_callback(door.close)
            await self._open(door)
            instance.announce(self.url, __version__)
            self.reload()
            self._serving.set()
            log.info("draftd serves", url=self.url, pid=os.getpid(), version=__version__)
            until_stopped = [tasks.create_task(self._watch()), tasks.create_task(self._events.run())]
            if self.settings.warm_spare:
                until_stopped.append(tasks.create_task(starter.run()))
            await self._stop.wait()
            for task in until_stopped:
                task.cancel()
            await self._shut_down(door, proxy, supervisor)
        log.info("draftd has stopped")

    async def _shut_down(self, door: FrontDoor, proxy: Proxy, supervisor: Supervisor) -> None:
        log.info("draftd stops", open_requests=proxy.open_requests)
        door.stop_listening()
        proxy.refuse_new()
        ended = asyncio.create_task(self._stop_now.wait())
        drained = asyncio.create_task(proxy.until_idle())
        limit = self.settings.drain_timeout
        _, pending = await asyncio.wait({ended, drained}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await supervisor.close(drain=0.0)

    async def _open(self, door: FrontDoor) -> None:
        host, port = self.settings.host, self.settings.port
        try:
            await door.open(host, port)
        except OSError as error:
            holder = await asyncio.to_thread(holder_of, port)
            why = f": {holder}" if holder.pid else f": {error.strerror}"
            raise DraftdError(
                f"cannot listen on {host}:{port}{why}; '--port' chooses another port"
            ) from error

    def _limits(self) -> Limits:
        settings = self.settings
        return Limits(settings.body_timeout, settings.write_timeout, settings.keepalive_interval)

    def _services(self, session: aiohttp.ClientSession, loads: LoadGate, starter: Starter) -> Services:
        ports = PortBook(self.settings.base_port)
        ports.reserve("", self.settings.port)  # the proxy's own
        return Services(
            ports=ports,
            loads=loads,
            starter=starter,
            session=session,
            base_env=os.environ,
            stop_grace=self.settings.stop_grace,
            drain_timeout=self.settings.drain_timeout,
            on_output=self._take_output,
            on_restart=self._metrics.restarted,
            on_change=self._tell_change,
            on_gone=self._forget,
            tail=self._sink.last_words,
        )

    def _forget(self, name: str) -> None:
        """A removed profile's last request has ended, and its worker is gone."""
        self._metrics.retire(name)
        self._sink.forget(name)
        self._tell_change()

    def _take_output(self, name: str, chunk: bytes) -> None:
        self._sink.feed(name, chunk)
        self._events.tell()

    def _on_record(self, worker: str, record: Record) -> None:
        assert self._supervisor is not None
        match record:
            case EngineStarted():
                self._supervisor.engine_started(worker, accounting=record.accounting)
            case DraftAcceptance() | GenerationReport():
                self._metrics.record(self._supervisor.whose(worker, record.profile), record)
        if isinstance(record, EngineProgress | GenerationReport | PromptProgress):
            memory = None if isinstance(record, PromptProgress) else record.memory
            self._supervisor.progress(worker, memory.active + memory.cache if memory else None)

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._events.tell()

    def _live(self) -> dict[str, Any]:
        assert self._api is not None
        return self._api.live()

    async def _watch(self) -> None:
        """Reload when a profile or prompt changes; what cannot be read leaves the old ones in force."""
        if not self._watched:
            return
        async for _ in watchfiles.awatch(*self._watched, stop_event=self._stop, recursive=False):
            self.try_reload()

    def try_reload(self) -> None:
        """Reload, and only log it if that is refused."""
        try:
            self.reload()
        except ConfigError as error:
            log.error("reload refused; the old profiles stay in force", reason=str(error))  # noqa: TRY400


def _samples(supervisor: Supervisor, proxy: Proxy) -> list[WorkerSample]:
    return [
        WorkerSample(
            w.name,
            w.state,
            w.memory_bytes,
            proxy.admission(w.name).depth if w.name == w.worker else None,
            w.start_seconds,
            w.accounting,
        )
        for w in supervisor.snapshot()
    ]


def _memory_of(starter: Starter) -> int:
    spare = starter.status()
    return (spare.memory_bytes or 0) if spare else 0


def handle_signals(daemon: Daemon) -> None:
    """SIGTERM and SIGINT stop the daemon, SIGHUP reloads it. For the main thread."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, daemon.stop)
    loop.add_signal_handler(signal.SIGINT, daemon.stop)
    loop.add_signal_handler(signal.SIGHUP, daemon.try_reload)


@asynccontextmanager
async def _worker_session() -> AsyncIterator[aiohttp.ClientSession]:
    """For talking to workers: one connection per request, as mlx_lm.server closes each; no proxy, no cookies."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session


def _version_of(package: str) -> str:
    with suppress(PackageNotFoundError):
        return version(package)
    return "not installed"
