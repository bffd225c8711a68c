"""All parts of a daemon, how they are made, and what they tell each other."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import aiohttp

from draftd import __version__
from draftd.ending import Ending
from draftd.errors import ConfigError
from draftd.instance import LOGS
from draftd.machine_memory import pressure
from draftd.peers.exposition import PeerCollector
from draftd.peers.fleet import Fleet
from draftd.peers.watch import Sessions
from draftd.reload import CurrentProfiles, Load, refusals_logged
from draftd.reports import take_report
from draftd.settings import Settings
from draftd.telemetry.chronicle import Chronicle
from draftd.telemetry.history import History
from draftd.telemetry.metrics import Metrics
from draftd.telemetry.output import Sink
from draftd.telemetry.rank_records import Ranks
from draftd.telemetry.record_parser import parse_record
from draftd.telemetry.records import Record
from draftd.tls import Certificate
from draftd.tls_renewal import ServedCertificate
from draftd.web.beginnings import Beginnings
from draftd.web.benches import Benches
from draftd.web.body_reader import BodyReader
from draftd.web.live_feed import LiveFeed
from draftd.web.own_load import OwnLoad
from draftd.web.peer_relay import PeerRelay
from draftd.web.proxy import Proxy
from draftd.web.router import Router
from draftd.web.routes import make_routed_listener
from draftd.web.status_report import StatusReport
from draftd.workers.kernel_kills import KernelKills
from draftd.workers.memory_book import MemoryBook
from draftd.workers.resources import LoadGate, PortBook
from draftd.workers.room import Room
from draftd.workers.services import Services
from draftd.workers.supervisor import Supervisor
from draftd.workers.warm_spare import Starter


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
        self.tls = ServedCertificate(settings.tls_cert, settings.tls_key) if settings.tls_cert else None
        self._ending = Ending(settings.drain_timeout)
        self._changed = asyncio.Event()
        self._news = asyncio.Event()  # for the live feed
        self.metrics = Metrics(__version__, _version_of("mlx-lm"))
        self.sink = Sink(settings.state_dir / LOGS, self._on_report, self._acceptance_pattern, self.metrics)
        self.chronicle = Chronicle(self.sink, self._news.set)
        self.journal = self.chronicle.journal
        self._loads = loads = LoadGate(settings.max_loads)
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
        if settings.may_have_peers:
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
            reload_problem=self._reload_problem,
            fleet=self.fleet,
            profiles_read=lambda: self.profiles.read_at,
            bench=self.benches.progress,
            captures=lambda: self.journal.contents.on,
        )
        self.feed = LiveFeed(self.report.live, self.sink.log, self.journal, self._news)
        self.history = History(self.report.levels, time.time)
        self.chronicle.on_ended.append(self.history.add_all)
        self.listener = make_routed_listener(
            settings,
            report=self.report,
            journal=self.journal,
            history=self.history,
            sink=self.sink,
            load=self.load,
            benches=self.benches,
            feed=self.feed,
            reload=self.reload,
            changed=self._news.set,
            tls=self.tls,
        )
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
        return Benches(command, self.router, tasks, self._news.set, self._free_memory, has_models=demo)

    @property
    def url(self) -> str:
        """Where clients on this machine find the daemon."""
        host = self.settings.own_host
        return self.settings.url_at(self.certificate.host_for_clients(host) if self.certificate else host)

    @property
    def certificate(self) -> Certificate | None:
        """What https is served with; None if plain http is."""
        return self.tls.certificate if self.tls else None

    @property
    def default_model(self) -> str:
        """The profile that answers a request without a model; empty if there is none."""
        default = self.router.table.default
        return default.name if default else ""

    def states(self) -> set[str]:
        """The states that workers are in."""
        return self.supervisor.states()

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
        await self._ending.until_begun()

    def stop(self, reason: str = "") -> None:
        """Stop in good order; a second call stops at once. `reason` is for the log."""
        self._ending.begin(reason)

    def start(self) -> None:
        """Start the workers of the profiles that the daemon was made with."""
        self.profiles.apply(self.router.table.profiles)

    def reload(self) -> list[str]:
        """Read the profiles again, all or none, and the certificate. Returns what changed. Raises ConfigError."""
        changed = self._reload_profiles()
        try:
            renewed = self.tls is not None and self.tls.renew()
        except ConfigError as error:
            raise ConfigError(f"{error}; the certificate from before stays in use") from error
        finally:
            self._news.set()
        return [*changed, *(["the certificate"] if renewed else [])]

    def _reload_profiles(self) -> list[str]:
        if self._ending.has_begun:
            raise ConfigError("draftd is stopping")
        try:
            return self.profiles.reload()
        finally:
            self._news.set()

    def try_reload(self) -> None:
        """Read profiles and certificate again, and only log it if that is refused."""
        with refusals_logged():
            self._reload_profiles()
        self.try_renew()

    def try_renew(self) -> None:
        """Read the certificate again; one that cannot be used is only logged."""
        if self.tls:
            with suppress(ConfigError):
                self.tls.renew()
            self._news.set()

    def _reload_problem(self) -> str | None:
        """Why the files on disk are not in force; None if they are."""
        told = [problem for problem in (self.profiles.problem, self.tls and self.tls.problem) if problem]
        return "\n".join(told) or None

    async def shut_down(self) -> None:
        """Take nothing new, let open requests finish as long as they may, and end the workers."""
        await self._ending.carry_out(self.listener, self.proxy, self.supervisor)

    # --- called by the parts ----------------------------------------------------------------------------------

    def _on_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._news.set()

    def _acceptance_pattern(self, worker: str) -> re.Pattern[str] | None:
        return self.supervisor.acceptance_pattern(worker)

    def _free_memory(self) -> int:
        return self.report.free_memory()

    def _on_peers(self) -> None:
        """A peer has come or gone, or its models have changed."""
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
        self._on_peers()  # a peer may still have the model
        self._on_change()

    def _on_output(self, name: str, chunk: bytes) -> None:
        self.sink.feed(name, chunk)
        self._news.set()

    def _on_record(self, worker: str, line: bytes) -> None:
        if (record := parse_record(line)) is not None:
            self._on_report(worker, record)
        if not isinstance(record, Ranks):  # they come each second, and nobody waits for them
            self._news.set()

    def _on_report(self, worker: str, record: Record) -> None:
        take_report(worker, record, self.supervisor, self.metrics)


def _version_of(package: str) -> str:
    with suppress(PackageNotFoundError):
        return version(package)
    return "not installed"
