"""What happens to every request: it gets an id, is let in or refused, is answered, and is counted.

Theory of operation. A transport (`fast_http`, `aiohttp_app`) reads the head of a request, makes a ClientExchange of
it and calls `run` with whatever is to handle it. All that two transports could do differently stands here and only
here: who is let in (`check`), the headers that every answer has, how an error is worded, what a client is sent when
the fault is ours, and what is counted under which status.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from draftd.errors import DraftdError, RequestError, WorkerError
from draftd.telemetry.journal import MAX_ERROR, Journal
from draftd.telemetry.metrics import CLIENT_LEFT, Metrics
from draftd.web.addresses import COMPLETIONS, MODELS, passed_kind
from draftd.web.client import EVENT_STREAM, ClientExchange, Limits, RequestHead
from draftd.web.dialects import messages_errors
from draftd.web.dialects.own_names import in_own_names
from draftd.web.error_bodies import error_body, error_event, error_headers, status_of
from draftd.web.guard import Guard
from draftd.web.proxy import Proxy
from draftd.web.router import Dialect, PassedKind
from draftd.web.uploads import is_upload

log = structlog.get_logger("web")
MESSAGES = "/v1/messages"  # what is below it answers in Anthropic's form, errors too
ANTHROPIC_VERSION = "anthropic-version"  # the header that Anthropic's clients send everywhere
SERVER = "draftd"
REQUEST_ID = "x-request-id"

Exchange = TypeVar("Exchange", bound=ClientExchange)


class Pipeline:
    """Takes every request from its head to its end; see the module."""

    def __init__(
        self, proxy: Proxy, guard: Guard, metrics: Metrics, limits: Limits, journal: Journal
    ) -> None:
        self._proxy = proxy
        self._guard = guard
        self._metrics = metrics
        self._limits = limits
        self._journal = journal

    def guarded_by(self, guard: Guard) -> None:
        """Have another guard from now on."""
        self._guard = guard

    def check(self, head: RequestHead) -> None:
        """Refuse what can be refused before the body is read. Raises RequestError."""
        if not head.target.startswith("/"):
            raise RequestError(403, "draftd is not a forward proxy: ask for a path, not for a URL")
        self._guard.check(head.method, head.path, head.headers)
        if head.length > largest(head, self._limits):
            raise too_large(head, self._limits)
        if head.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise RequestError(415, "compressed bodies are not accepted")
        if head.headers.get("Expect", "100-continue").lower() != "100-continue":
            raise RequestError(417, "the only expectation that draftd can meet is 100-continue")

    def takes_completion(self, head: RequestHead) -> bool:
        """Whether this is a request for a model whose body may be read, and into memory."""
        try:
            self.check(head)
        except RequestError:
            return False
        return head.path in COMPLETIONS or (passed_kind(head.path) is not None and not _is_upload(head))

    def is_preflight(self, head: RequestHead) -> bool:
        """Whether a browser asks what a page may send: the headers that every answer has are all that it wants."""
        return self._guard.is_preflight(head.method, head.headers)

    def complete(self, exchange: ClientExchange) -> Awaitable[None]:
        """Handle a request for a model."""
        return self._proxy.handle(exchange, COMPLETIONS.get(exchange.head.path))

    async def run(self, exchange: Exchange, handle: Callable[[Exchange], Awaitable[None]]) -> None:
        """Answer one request by `handle`, which may raise.

        Raises CancelledError if the client has left or does not read: then nobody is there to be answered.
        """
        began = time.monotonic()
        head = exchange.head
        exchange.headers |= identity() | self._guard.answer_headers(head.method, head.headers)
        if _speaks_messages(head):  # where Anthropic's clients look for it
            exchange.headers["request-id"] = exchange.headers[REQUEST_ID]
        if kind := _kind(head.path):
            agent = head.headers.get("User-Agent", "")
            exchange.record = self._journal.begin(exchange.headers[REQUEST_ID], kind, agent)
        status = CLIENT_LEFT
        try:
            status = await self._status_of(exchange, handle)
        except (ConnectionError, TimeoutError):
            exchange.abort()
            raise asyncio.CancelledError from None
        finally:
            self._count(exchange, status, time.monotonic() - began)

    async def _status_of(self, exchange: Exchange, handle: Callable[[Exchange], Awaitable[None]]) -> int:
        try:
            await self._handled(exchange, handle)
        except DraftdError as error:
            if exchange.record:
                exchange.record.error = str(error)[:MAX_ERROR]
            return await _fail(exchange, error)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            request_id = exchange.headers[REQUEST_ID]
            log.exception(
                "a request failed because of a fault in draftd",
                path=exchange.head.path,
                request_id=request_id,
            )
            return await _fail(exchange, DraftdError("a fault in draftd; its log has the details"))
        return exchange.status

    async def _handled(self, exchange: Exchange, handle: Callable[[Exchange], Awaitable[None]]) -> None:
        try:
            await handle(exchange)
        except asyncio.CancelledError:
            task, record = asyncio.current_task(), exchange.record
            if record is None or not record.cancelled or task is None or task.uncancel():
                raise  # not by us, or not only
            text = "the request was cancelled at the daemon"
            raise WorkerError(text, code="cancelled", retry=False) from None

    def _count(self, exchange: ClientExchange, status: int, seconds: float) -> None:
        path = exchange.head.path
        if kind := _kind(path):
            self._metrics.request(exchange.profile, kind, status, seconds)
        elif path.startswith(MODELS):
            self._metrics.request(None, "models", status, seconds)
        if exchange.record:
            self._journal.end(exchange.record, status, seconds)


def _kind(path: str) -> Dialect | PassedKind | None:
    """The kind of a request that a worker has to answer; None for any other."""
    return COMPLETIONS.get(path) or passed_kind(path)


def _speaks_messages(head: RequestHead) -> bool:
    return head.path.startswith(MESSAGES) or (
        head.path.startswith(MODELS) and ANTHROPIC_VERSION.title() in head.headers
    )


def identity() -> dict[str, str]:
    """The headers that every answer has: the server's name, and a new id for the request."""
    return {"Server": SERVER, REQUEST_ID: secrets.token_hex(16)}


def largest(head: RequestHead, limits: Limits) -> int:
    """How many bytes the body of a request may have."""
    return limits.max_upload if _is_upload(head) else limits.max_body


def _is_upload(head: RequestHead) -> bool:
    return head.path not in COMPLETIONS and is_upload(head)


def too_large(head: RequestHead, limits: Limits) -> RequestError:
    """The error for a body beyond the limit, whether announced or not."""
    setting = "max_upload_bytes" if _is_upload(head) else "max_body_bytes"
    return RequestError(413, f"the body is larger than {largest(head, limits)} bytes (see {setting})")


async def _fail(exchange: ClientExchange, error: DraftdError) -> int:
    """Answer with an error: with its status if nothing was sent yet, else with an event and no end mark.

    Where the dialect has an event that ends a stream with an error, that is the end mark.
    """
    error = in_own_names(error, exchange.head.path)
    of_messages, request_id = _speaks_messages(exchange.head), exchange.headers[REQUEST_ID]
    if exchange.begun and exchange.failed is not None:
        await exchange.finish(exchange.failed(error))
    elif exchange.begun:
        if exchange.stream_type.startswith(EVENT_STREAM):
            await exchange.write(
                messages_errors.error_event(error, request_id) if of_messages else error_event(error)
            )
        exchange.cut()
    else:
        exchange.headers |= error_headers(error)
        body = messages_errors.error_body(error, request_id) if of_messages else error_body(error)
        await exchange.answer(status_of(error), json.dumps(body).encode())
    return status_of(error)
