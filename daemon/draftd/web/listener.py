"""The front door: listens, gives every connection its ways, and answers the requests that are read at a glance."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Iterable

from draftd.errors import DraftdError, RequestError
from draftd.telemetry.metrics import CLIENT_LEFT, Metrics
from draftd.web.aiohttp_app import COMPLETIONS, REQUEST_ID, Receiver, make_runner, our_fault
from draftd.web.api import Api
from draftd.web.client import Limits
from draftd.web.error_bodies import error_body, error_headers, status_of
from draftd.web.fast_http import Connection, PlainClient, Ways
from draftd.web.guard import Guard
from draftd.web.plain import PlainRequest
from draftd.web.proxy import Proxy
from draftd.web.request_body import Endpoint

CUT_AFTER = 1.0  # seconds that open answers get to end when the door closes


class FrontDoor:
    """`max_body` is in bytes, `idle_timeout` in seconds (see Settings)."""

    def __init__(
        self,
        api: Api,
        proxy: Proxy,
        guard: Guard,
        metrics: Metrics,
        limits: Limits,
        *,
        max_body: int,
        idle_timeout: float,
    ) -> None:
        self._proxy = proxy
        self._guard = guard
        self._metrics = metrics
        self._max_body = max_body
        self._runner = make_runner(api, proxy, guard, metrics, limits, max_body=max_body)
        self._ways = Ways(self._admits, self._answer, self._receiver, idle_timeout, limits.write)
        self._listener: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> None:
        """Listen. Raises OSError."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self._ways), host, port)

    def stop_listening(self) -> None:
        """Take no new connection; those there are stay."""
        if self._listener is not None:
            self._listener.close()

    async def close(self) -> None:
        """Close every connection; what is still answered then is cut."""
        self.stop_listening()
        connections = list(self._ways.open)
        if calls := _calls(connections):
            await asyncio.wait(calls, timeout=CUT_AFTER)
        for connection in connections:
            connection.abort()
        if calls := _calls(connections):
            await asyncio.wait(calls)
        await self._runner.cleanup()

    def _receiver(self) -> asyncio.Protocol:
        assert self._runner.server is not None
        return Receiver(self._runner.server, self._ways.idle)

    def _admits(self, request: PlainRequest) -> bool:
        if request.path not in COMPLETIONS or request.length > self._max_body:
            return False
        try:
            self._guard.check("POST", request.path, request.headers)
        except RequestError:
            return False
        return True

    async def _answer(self, client: PlainClient, path: str) -> None:
        client.told[REQUEST_ID] = secrets.token_hex(16)
        endpoint = COMPLETIONS[path]
        began = time.monotonic()
        status = CLIENT_LEFT
        try:
            status = await self._status(client, endpoint, path)
        except (ConnectionError, TimeoutError):  # the client left, or stopped reading
            client.abort()
        finally:
            self._metrics.request(client.profile, endpoint, status, time.monotonic() - began)

    async def _status(self, client: PlainClient, endpoint: Endpoint, path: str) -> int:
        try:
            whole = await self._proxy.handle(client, endpoint)
        except DraftdError as error:
            told = error
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            told = our_fault(path, client.told)
        else:
            if whole is not None:
                await client.answer(200, whole)
            return client.status or 200
        if client.begun:
            client.abort()  # the fault came in the middle of a stream
        else:
            await client.answer(status_of(told), json.dumps(error_body(told)).encode(), error_headers(told))
        return status_of(told)


def _calls(connections: Iterable[Connection]) -> list[asyncio.Task[None]]:
    return [connection.call for connection in connections if connection.call is not None]
