"""Listens for clients, and closes their connections. Each begins on the fast transport; see `fast_http`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiohttp import web

from draftd import clock
from draftd.errors import ConfigError
from draftd.settings import Settings
from draftd.sockets import is_answered, why_not_listening
from draftd.telemetry.journal import Journal
from draftd.telemetry.metrics import Metrics
from draftd.tls_renewal import ServedCertificate
from draftd.web.acceptor import Acceptor
from draftd.web.aiohttp_app import make_runner
from draftd.web.aiohttp_connection import AiohttpConnection
from draftd.web.client import Limits
from draftd.web.fast_http import FastConnection, FastServer
from draftd.web.guard import Guard, make_guard
from draftd.web.pipeline import Pipeline
from draftd.web.proxy import Proxy
from draftd.web.tls_start import Tls

CUT_AFTER = 1.0  # seconds that open answers have to end once `close` is called


def make_listener(
    settings: Settings,
    proxy: Proxy,
    metrics: Metrics,
    journal: Journal,
    routes: Iterable[web.RouteDef],
    tls: ServedCertificate | None,
) -> Listener:
    """The listener that the settings ask for, over `tls` if there is some. Raises ConfigError for an open address
    without a key.
    """
    limits = Limits(
        max_body=settings.max_body_bytes,
        max_upload=settings.max_upload_bytes,
        folder=settings.state_dir,
        body=settings.body_timeout,
        write=settings.write_timeout,
        idle=settings.connection_timeout,
    )
    key = settings.api_key.get_secret_value() if settings.api_key else ""

    def guard() -> Guard:
        names = (*settings.allowed_hosts, *(tls.certificate.names if tls else ()))
        return make_guard(settings.host, names, settings.allowed_origins, key)

    pipeline = Pipeline(proxy, guard(), metrics, limits, journal)
    if tls:
        tls.on_renewal.append(lambda: pipeline.guarded_by(guard()))
    over = Tls(tls.current, settings.connection_timeout) if tls else None
    return Listener(pipeline, routes, limits, over)


class Listener:
    """`routes` are served beside the completions."""

    def __init__(
        self, pipeline: Pipeline, routes: Iterable[web.RouteDef], limits: Limits, tls: Tls | None
    ) -> None:
        self._limits = limits
        self._runner = make_runner(pipeline, routes, limits)
        self._fast = FastServer(pipeline, limits, self._fallback)
        self._acceptor = Acceptor(lambda: FastConnection(self._fast), tls)

    async def open(self, host: str, port: int) -> None:
        """Listen. Raises ConfigError, which says who holds the port, or what else is in the way."""
        if await asyncio.to_thread(is_answered, host, port):
            raise ConfigError(await asyncio.to_thread(why_not_listening, host, port, None))
        await self._runner.setup()
        try:
            await self._acceptor.open(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: it cannot be the name of a host
            raise ConfigError(await asyncio.to_thread(why_not_listening, host, port, error)) from error

    def stop_listening(self) -> None:
        """Accept no new connections; existing ones stay open."""
        self._acceptor.close()

    async def close(self) -> None:
        """Close every connection; an answer that is still being sent then is cut off."""
        self.stop_listening()
        connections = list(self._fast.connections)
        if calls := _calls(connections):
            await clock.wait(calls, CUT_AFTER)
        for connection in connections:
            connection.abort()
        if calls := _calls(connections):
            await asyncio.wait(calls)
        await self._runner.cleanup()

    def _fallback(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None, "set up before anybody can connect"
        return AiohttpConnection(server, self._limits)


def _calls(connections: Iterable[FastConnection]) -> list[asyncio.Task[None]]:
    return [connection.call for connection in connections if connection.call is not None]
