"""The transport for requests that are not in the plain form of `fast_http`: aiohttp's server, and the routes."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import cast

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.typedefs import Middleware

from draftd import __version__, clock
from draftd.errors import RequestError
from draftd.peers.bodies import Body
from draftd.web import openapi
from draftd.web.addresses import meant, nearest
from draftd.web.aiohttp_connection import AiohttpConnection, unknown_version
from draftd.web.client import JSON, STREAM_HEADERS, ClientExchange, Limits, RequestHead
from draftd.web.pipeline import Pipeline, largest, too_large
from draftd.web.uploads import is_upload, kept_in_a_file

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
VERSIONS = (HttpVersion10, HttpVersion11)
# Headers that decide whether a request is let in: each may appear only once.
ONCE = (hdrs.HOST, hdrs.ORIGIN, hdrs.AUTHORIZATION, "X-Api-Key", hdrs.CONTENT_TYPE)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def make_runner(pipeline: Pipeline, routes: Iterable[web.RouteDef], limits: Limits) -> web.AppRunner:
    """A runner that serves the models and `routes`; the caller sets it up and cleans it up."""
    app = web.Application(middlewares=[_middleware(pipeline, limits)])
    asking = [web.post(path, _completion(pipeline, told)) for path, told in _ASKING.items()]
    for route in (*routes, *asking, web.get("/openapi.json", _document(app))):
        web.RouteDef(route.method, route.path, route.handler, {**route.kwargs, **_EXPECT}).register(
            app.router
        )
    app.on_response_prepare.append(_add_headers)
    return web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)


class AiohttpExchange(ClientExchange):
    """An exchange whose request aiohttp has read."""

    def __init__(self, request: web.Request, limits: Limits) -> None:
        length = request.content_length or 0
        path = meant(request.path)
        super().__init__(RequestHead(request.method, request.raw_path, path, request.headers, length))
        self._request = request
        self._limits = limits
        self._response: web.StreamResponse | None = None

    @property
    def begun(self) -> bool:
        return self._response is not None

    @property
    def response(self) -> web.StreamResponse:
        """What was sent, or is being sent."""
        assert self._response is not None, "a handler that returns has answered"
        return self._response

    async def any_body(self) -> Body:
        if not is_upload(self.head):
            return await self.body()
        told = self.head.headers.get(hdrs.CONTENT_TYPE, "")
        return await kept_in_a_file(self._pieces(slowly=True), told, self._limits.folder)

    async def body(self) -> bytes:
        # Not by request.read(): aiohttp keeps what that returns, and a request is part of a cycle, so large bodies
        # would stay until the garbage collector comes by.
        body = bytearray()
        async for piece in self._pieces():
            body += piece
        return bytes(body)

    async def _pieces(self, *, slowly: bool = False) -> AsyncIterator[bytes]:
        """The body as it comes. There is a limit to the time that it takes, or if it may come `slowly`, to the time
        without any of it.
        """
        if hdrs.EXPECT in self.head.headers and self._request.transport is not None:
            self._request.transport.write(CONTINUE)  # only now: nobody who is refused should send a body
        size, left = 0, self._limits.body
        try:
            while not self._request.content.at_eof():
                began = time.monotonic()
                async with clock.limit(left):
                    piece = await self._request.content.readany()
                if not slowly:
                    left = max(0.0, left - (time.monotonic() - began))
                size += len(piece)
                if size > largest(self.head, self._limits):
                    raise too_large(self.head, self._limits)
                yield piece
        except web.RequestPayloadError as error:
            raise RequestError(400, "the chunks of the body are not valid HTTP") from error
        except TimeoutError as error:
            seconds = f"{self._limits.body:g} s"
            late = (
                f"nothing of the body came for {seconds}"
                if slowly
                else f"the body did not come within {seconds}"
            )
            raise RequestError(408, late) from error

    async def answer(self, status: int, body: bytes, content_type: str = JSON) -> None:
        await self.send(web.Response(status=status, body=body, headers={hdrs.CONTENT_TYPE: content_type}))

    async def send(self, response: web.StreamResponse) -> None:
        """Send an answer in one piece that a handler has made."""
        self.status = response.status
        self._response = response
        unread = self._request.can_read_body and not self._request.content.is_eof()
        if unread or response.status == 505 or self._ends_http:
            response.force_close()  # nobody wants the rest of the body
        async with clock.limit(self._limits.write):
            await response.prepare(self._request)
            await response.write_eof()

    async def write(self, data: bytes) -> None:
        async with clock.limit(self._limits.write):
            await (await self._stream()).write(data)

    async def finish(self, data: bytes) -> None:
        async with clock.limit(self._limits.write):
            await (await self._stream()).write_eof(data)

    @property
    def _ends_http(self) -> bool:
        """Whether another protocol is asked for. It is not granted, but aiohttp reads no request after that."""
        return hdrs.UPGRADE in self.head.headers

    async def _stream(self) -> web.StreamResponse:
        if self._response is None:
            headers = {hdrs.CONTENT_TYPE: self.stream_type, **STREAM_HEADERS}
            self._response = web.StreamResponse(headers=headers)
            if self._ends_http:
                self._response.force_close()
            await self._response.prepare(self._request)
        return self._response

    def cut(self) -> None:
        self.response.force_close()
        if self._request.transport is not None:
            self._request.transport.close()

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


EXCHANGE = web.RequestKey("exchange", AiohttpExchange)  # every request has one


def json_response(value: object, *, status: int = 200) -> web.Response:
    """An answer in JSON, with the content type that the pipeline's have."""
    return web.Response(body=json.dumps(value).encode(), status=status, headers={hdrs.CONTENT_TYPE: JSON})


def _middleware(pipeline: Pipeline, limits: Limits) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        async def handle(exchange: AiohttpExchange) -> None:
            _check_form(request)
            pipeline.check(exchange.head)
            try:
                preflight = pipeline.is_preflight(exchange.head)
                found = await _handler_of(request, handler)
                response = web.Response(status=204) if preflight else await found(request)
            except web.HTTPException as error:
                raise _as_ours(error, exchange) from error
            if not exchange.begun:
                await exchange.send(response)

        exchange = request[EXCHANGE] = AiohttpExchange(request, limits)
        try:
            await pipeline.run(exchange, handle)
        finally:
            cast(AiohttpConnection, request.protocol).answered()
        return exchange.response

    return middleware


async def _handler_of(request: web.Request, found: Handler) -> Handler:
    """The handler for the address that is meant; `found` is the one for the address as it was typed."""
    path = request[EXCHANGE].head.path
    if path == request.path:
        return found
    resolved = await request.app.router.resolve(request.clone(rel_url=request.rel_url.with_path(path)))
    return resolved.handler


_ASKING: Mapping[str, str] = {
    "/v1/chat/completions": "OpenAI's chat completions; the answer is server-sent events if `stream` is true.",
    "/v1/completions": "OpenAI's text completions; the answer is server-sent events if `stream` is true.",
    "/v1/messages": "Anthropic's messages; the answer is a stream of their events if `stream` is true.",
    "/v1/messages/count_tokens": "Counts a prompt's tokens, in Anthropic's form, with the model's own template.",
    "/v1/responses": "OpenAI's responses; the answer is a stream of their events if `stream` is true.",
    "/v1/embeddings": "Passed on to the server that a profile's `command` starts.",
    "/v1/rerank": "Passed on to the server that a profile's `command` starts.",
    "/v1/audio/{path:.+}": "Passed on to the server that a profile's `command` starts; forms too.",
    "/v1/images/{path:.+}": "Passed on to the server that a profile's `command` starts; forms too.",
}


def _check_form(request: web.Request) -> None:
    """Refuse what only aiohttp would take, and what could be read in two ways. Raises RequestError."""
    if request._version not in VERSIONS:
        request._version = HttpVersion11  # for the answer; `version` keeps what the client sent
        raise unknown_version()
    for name in ONCE:
        if len(request.headers.getall(name, ())) > 1:
            raise RequestError(400, f"there is more than one {name} header")


def _completion(pipeline: Pipeline, told: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        exchange = request[EXCHANGE]
        await pipeline.complete(exchange)
        return exchange.response

    handle.__doc__ = told
    return handle


def _document(app: web.Application) -> Handler:
    """The document is made when it is first asked for, which is rare."""

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
        return json_response(made())

    return handle


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(request[EXCHANGE].headers)


async def _say_nothing(request: web.Request) -> None:
    """aiohttp would answer `Expect: 100-continue` before the pipeline has let anybody in."""


_EXPECT = {"expect_handler": _say_nothing}


def _as_ours(error: web.HTTPException, exchange: ClientExchange) -> RequestError:
    if error.status == 405:
        exchange.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        return RequestError(405, "this path does not take that method", code="method_not_allowed")
    address = nearest(exchange.head.path) if error.status == 404 else None
    hint = f"; did you mean {address}?" if address else ""
    return RequestError(error.status, f"there is nothing at this path{hint}", code="not_found")
