"""The aiohttp application: routes, and the one middleware that guards, numbers, counts and words errors."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from daemon.errors import ConfigError, DraftdError, RequestError
from daemon.telemetry.metrics import CLIENT_LEFT, Metrics
from daemon.web.api import Api
from daemon.web.forwarding import Endpoint
from daemon.web.guard import Guard
from daemon.web.proxy import Proxy
from daemon.web.replies import error_body, error_headers, status_of
from daemon.web.reply import PROFILE, REQUEST_ID, STATUS

log = structlog.get_logger("web")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
COMPLETIONS: dict[str, Endpoint] = {
    "/v1/chat/completions": "chat.completions",
    "/chat/completions": "chat.completions",
    "/v1/completions": "completions",
}


def make_app(api: Api, proxy: Proxy, guard: Guard, metrics: Metrics, max_body: int) -> web.Application:
    """The front door. `max_body` is in bytes."""
    app = web.Application(client_max_size=max_body, middlewares=[_middleware(guard, metrics)])
    app.add_routes(api.routes())
    for path, endpoint in COMPLETIONS.items():
        app.router.add_post(path, _completion(proxy, endpoint))
    return app


def _completion(proxy: Proxy, endpoint: Endpoint) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await proxy.handle(request, endpoint)

    return handle


def _endpoint_label(path: str) -> str:
    if path in COMPLETIONS:
        return COMPLETIONS[path]
    return "models" if path.startswith("/v1/models") else "other"


def _middleware(guard: Guard, metrics: Metrics) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = uuid.uuid4().hex
        began = time.monotonic()
        status = CLIENT_LEFT
        try:
            response = await _answer(request, handler, guard)
            # A stream that failed half-way carries the status that it would have had.
            status = request.get(STATUS, response.status)
        except (ConnectionError, TimeoutError):  # the client left, or stopped reading
            raise asyncio.CancelledError from None
        else:
            return response
        finally:
            if _endpoint_label(request.path) != "other" or request.get(PROFILE):
                seconds = time.monotonic() - began
                metrics.request(request.get(PROFILE), _endpoint_label(request.path), status, seconds)

    return middleware


async def _answer(request: web.Request, handler: Handler, guard: Guard) -> web.StreamResponse:
    try:
        guard.check(request.method, request.path, request.headers)
        return await handler(request)
    except DraftdError as error:
        return _error(request, error)
    except web.HTTPException as error:
        return _error(request, _as_ours(error), error.headers.get("Allow"))
    except (ConnectionError, TimeoutError):
        raise
    except Exception:
        log.exception(
            "a request failed by a fault of draftd", path=request.path, request_id=request[REQUEST_ID]
        )
        return _error(request, DraftdError("a fault in draftd; its log has the details"))


def _as_ours(error: web.HTTPException) -> DraftdError:
    if error.status == 405:
        return RequestError(405, "this path does not take that method", code="method_not_allowed")
    return RequestError(error.status, "there is nothing at this path", code="not_found")


def _error(request: web.Request, error: DraftdError, allow: str | None = None) -> web.Response:
    status = 400 if isinstance(error, ConfigError) else status_of(error)
    headers = {
        "x-request-id": request[REQUEST_ID],
        **error_headers(error),
        **({"Allow": allow} if allow else {}),
    }
    return web.json_response(error_body(error), status=status, headers=headers)
