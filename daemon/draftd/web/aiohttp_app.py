"""The aiohttp application: routes, and the one middleware that guards, numbers, counts and words errors."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from draftd import __version__
from draftd.errors import DraftdError, RequestError
from draftd.telemetry.metrics import CLIENT_LEFT, Metrics
from draftd.web import openapi
from draftd.web.api import Api
from draftd.web.client import Limits, WebClient
from draftd.web.error_bodies import error_body, error_headers, status_of
from draftd.web.guard import Guard
from draftd.web.proxy import Proxy
from draftd.web.request_body import Endpoint

log = structlog.get_logger("web")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
COMPLETIONS: dict[str, Endpoint] = {
    "/v1/chat/completions": "chat.completions",
    "/chat/completions": "chat.completions",
    "/v1/completions": "completions",
}
REQUEST_ID = "x-request-id"
TOLD = web.RequestKey("told", dict[str, str])  # headers of the answer, whatever it will be
CLIENT = web.RequestKey("client", WebClient)  # of a completion
LINGER = 2.0  # seconds that a refused client may go on sending before its connection is closed
_QUIET = logging.getLogger("draftd.http")
_QUIET.setLevel(logging.CRITICAL)


def make_runner(
    api: Api, proxy: Proxy, guard: Guard, metrics: Metrics, limits: Limits, *, max_body: int
) -> web.AppRunner:
    """All that the daemon answers; to be set up and cleaned up. `max_body` is in bytes (see Settings)."""
    door = _Door(guard, metrics, max_body)
    app = web.Application(client_max_size=max_body, middlewares=[door.middleware()])
    app.add_routes(api.routes())
    for path, endpoint in COMPLETIONS.items():
        app.router.add_post(path, _completion(proxy, endpoint, limits), expect_handler=door.on_expect)
    app.router.add_get("/openapi.json", _describe(app))
    app.on_response_prepare.append(door.on_prepare)
    return web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)


class Receiver(web.RequestHandler):
    """aiohttp's side of one connection to the server of `make_runner`; `idle` is in seconds.

    What handlers raise is logged by our middleware. What is left are requests that are no HTTP, and aiohttp would
    log their headers, a key among them.
    """

    def __init__(self, server: web.Server, idle: float) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=_QUIET,
            logger=_QUIET,
            keepalive_timeout=idle,
            lingering_time=LINGER,
        )

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP; its text does not quote the request, as aiohttp's would."""
        response = web.json_response(error_body(RequestError(400, "this is no request in HTTP")), status=400)
        response.force_close()
        return response


def _completion(proxy: Proxy, endpoint: Endpoint, limits: Limits) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        client = request[CLIENT] = WebClient(request, request[TOLD], limits)
        whole = await proxy.handle(client, endpoint)
        return client.response if whole is None else web.Response(body=whole, content_type="application/json")

    handle.__doc__ = f"Ask a model, as OpenAI's {endpoint} do; streamed as server-sent events if so asked."

    return handle


def _describe(app: web.Application) -> Handler:
    """The document is made when it is first asked for: few ever do."""

    @functools.cache
    def made() -> dict[str, object]:
        routes = (
            openapi.Route(route.method, route.resource.canonical, route.handler)
            for route in app.router.routes()
            if route.resource is not None and route.method != hdrs.METH_HEAD
        )
        return openapi.document(routes, __version__)

    async def handle(request: web.Request) -> web.StreamResponse:
        """GET /openapi.json: this document."""
        return web.json_response(made())

    return handle


def _endpoint_label(path: str) -> str:
    if path in COMPLETIONS:
        return COMPLETIONS[path]
    return "models" if path.startswith("/v1/models") else "other"


class _Door:
    """What happens to every request, whatever its path."""

    def __init__(self, guard: Guard, metrics: Metrics, max_body: int) -> None:
        self._guard = guard
        self._metrics = metrics
        self._max_body = max_body

    def middleware(self) -> Middleware:
        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            request[TOLD] = {REQUEST_ID: secrets.token_hex(16)}
            began = time.monotonic()
            status = CLIENT_LEFT
            try:
                response = await self._answer(request, handler)
                client = request.get(CLIENT)
                status = (client.status if client else None) or response.status
            except (ConnectionError, TimeoutError):  # the client left, or stopped reading
                if request.transport is not None:
                    request.transport.abort()
                raise asyncio.CancelledError from None
            else:
                return response
            finally:
                self._count(request, status, time.monotonic() - began)

        return middleware

    def _count(self, request: web.Request, status: int, seconds: float) -> None:
        client, label = request.get(CLIENT), _endpoint_label(request.path)
        profile = client.profile if client else None
        if label != "other" or profile:
            self._metrics.request(profile, label, status, seconds)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._admit(request)
            if _is_preflight(request):
                return web.Response(status=204)
            return await handler(request)
        except DraftdError as error:
            return _error(request, error)
        except web.HTTPException as error:
            return _error(request, _as_ours(error), error.headers.get(hdrs.ALLOW))
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            told = our_fault(request.path, request[TOLD])
            client: WebClient | None = request.get(CLIENT)
            if client is None or not client.begun:
                return _error(request, told)
            client.status = status_of(told)
            client.cut()
            return client.response

    def _admit(self, request: web.Request) -> None:
        """Everything that can be refused before the body is read. Raises RequestError."""
        if not request.raw_path.startswith("/"):
            raise RequestError(403, "this is no forward proxy: ask for a path, not for an address")
        self._guard.check(request.method, request.path, request.headers)
        if (request.content_length or 0) > self._max_body:
            raise RequestError(413, f"the body is larger than {self._max_body} bytes (see max_body_bytes)")
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise RequestError(415, "compressed bodies are not accepted")

    async def on_expect(self, request: web.Request) -> web.StreamResponse | None:
        """`Expect: 100-continue`: the body is asked for only from who would be let in with it."""
        request[TOLD] = {REQUEST_ID: secrets.token_hex(16)}
        try:
            if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
                raise RequestError(417, "the only expectation that can be met is 100-continue")
            self._admit(request)
        except RequestError as error:
            return _error(request, error)
        if request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    async def on_prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Tell what is known of the request. Let pages of the origins that the settings name read the answer; by
        default there are none.
        """
        response.headers.update(request.get(TOLD, {}))
        origin = request.headers.get(hdrs.ORIGIN)
        if origin in self._guard.origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.VARY] = "Origin"
            if request.method == hdrs.METH_OPTIONS:
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, POST"
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = "Authorization, Content-Type"


def our_fault(path: str, told: dict[str, str]) -> DraftdError:
    """What the client is told of the exception that is handled now; the log has the rest."""
    log.exception("a request failed by a fault of draftd", path=path, request_id=told[REQUEST_ID])
    return DraftdError("a fault in draftd; its log has the details")


def _is_preflight(request: web.Request) -> bool:
    return request.method == hdrs.METH_OPTIONS and hdrs.ORIGIN in request.headers


def _as_ours(error: web.HTTPException) -> DraftdError:
    if error.status == 405:
        return RequestError(405, "this path does not take that method", code="method_not_allowed")
    return RequestError(error.status, "there is nothing at this path", code="not_found")


def _error(request: web.Request, error: DraftdError, allow: str | None = None) -> web.Response:
    headers = error_headers(error)
    if allow:
        headers[hdrs.ALLOW] = allow
    response = web.json_response(error_body(error), status=status_of(error), headers=headers)
    if request.can_read_body and not request.content.is_eof():
        response.force_close()  # the rest of a body that nobody wants
    return response
