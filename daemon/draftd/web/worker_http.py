"""The worker's side of one request: send it, read the answer, and say honestly what went wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

from draftd.errors import DraftdError, RequestError, WorkerError
from draftd.web.answer_stream import MAX_EVENT, BrokenAnswerError
from draftd.web.exchange import Exchange, connect

MAX_ERROR = 64 * 1024  # bytes of an error body that are read
_LEFT_THE_WORKER = "the worker ended in the middle of its answer"


class NotSentError(WorkerError):
    """Nobody took the connection: nothing was sent, so the request may be sent again."""


async def post(port: int, path: str, payload: bytes, headers: Mapping[str, str]) -> Exchange:
    """The worker's answer with status 200, to be closed. Raises NotSentError, RequestError or WorkerError.

    `headers` go to the worker beside those that every request has.
    """
    try:
        exchange = await connect(port)
    except OSError as error:
        raise NotSentError("the worker has just ended", code="worker_lost", retry_after=1) from error
    try:
        await _ask(exchange, port, path, payload, headers)
        if exchange.status != 200:
            raise _refused(exchange.status, await _error_body(exchange))
    except BaseException:
        exchange.close()
        raise
    return exchange


async def _ask(exchange: Exchange, port: int, path: str, payload: bytes, headers: Mapping[str, str]) -> None:
    try:
        await exchange.ask(port, path, payload, headers)
    except (OSError, EOFError) as error:
        raise WorkerError("the worker ended before it answered", status=502, code="worker_lost") from error


async def piece(exchange: Exchange) -> bytes:
    """What comes next of a stream, b"" at its end. Raises WorkerError if the connection breaks."""
    try:
        return await exchange.read()
    except OSError as error:
        raise WorkerError(_LEFT_THE_WORKER, status=502, code="worker_lost") from error


async def whole(exchange: Exchange) -> bytes:
    """The body of an answer that is not streamed. Raises WorkerError if the connection breaks.

    Nothing shows here whether such an answer gets on: our engine says it by itself.
    """
    try:
        return await _some(exchange, MAX_EVENT)
    except OSError as error:
        raise WorkerError(_LEFT_THE_WORKER, status=502, code="worker_lost") from error


async def _some(exchange: Exchange, most: int) -> bytes:
    """The body, or what of it comes until there are `most` bytes. Raises OSError."""
    body = bytearray()
    while len(body) < most and (piece := await exchange.read()):
        body += piece
    return bytes(body)


def truncated() -> WorkerError:
    """For a stream that ended without its end mark."""
    return WorkerError(_LEFT_THE_WORKER, status=502, code="worker_lost")


def broken(error: BrokenAnswerError) -> WorkerError:
    """For an answer that is not what it should be."""
    return WorkerError(f"the worker's answer was broken: {error}", status=502, code="bad_answer")


async def _error_body(exchange: Exchange) -> bytes:
    with suppress(OSError):
        return await _some(exchange, MAX_ERROR)
    return b""


def _refused(status: int, raw: bytes) -> DraftdError:
    """mlx_lm.server says 404 for whatever goes wrong while it reads a request; only some of it is the client's."""
    message = _message(raw) or f"the worker answered with status {status}"
    if "generation thread died" in message:
        return WorkerError("the worker's generation thread died", status=502, code="worker_lost")
    if status in {400, 404, 422}:
        return RequestError(400, message)
    if status in {429, 503}:
        return WorkerError(message, retry_after=1)
    return WorkerError(message, status=502, code="bad_answer")


def _message(raw: bytes) -> str:
    """The text of `{"error": "..."}` or `{"error": {"message": "..."}}`."""
    try:
        error = json.loads(raw)["error"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)
