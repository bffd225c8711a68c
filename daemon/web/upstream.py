"""The worker's side of one request: send it, read the answer, and say honestly what went wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp

from daemon.errors import DraftdError, RequestError, WorkerError
from daemon.web.events import BrokenAnswerError, EventSplitter

PROGRESS_INTERVAL = 5.0  # seconds
MAX_ERROR = 64 * 1024  # bytes of an error body that are read
_LEFT_THE_WORKER = "the worker ended in the middle of its answer"


class NotSentError(WorkerError):
    """Nobody took the connection: nothing was sent, so the request may be sent again."""


@asynccontextmanager
async def post(
    session: aiohttp.ClientSession, url: str, payload: bytes
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The worker's answer with status 200. Raises NotSentError, RequestError or WorkerError."""
    try:
        response = await session.post(url, data=payload, headers={"Content-Type": "application/json"})
    except aiohttp.ClientConnectorError as error:
        raise NotSentError("the worker has just ended", code="worker_lost", retry_after=1) from error
    except (aiohttp.ClientError, OSError) as error:
        raise WorkerError("the worker ended before it answered", status=502, code="worker_lost") from error
    try:
        if response.status != 200:
            raise await _refused(response)
        yield response
    finally:
        response.close()


async def events(response: aiohttp.ClientResponse, progress: Callable[[], None]) -> AsyncIterator[bytes]:
    """The data of each event as it comes; `progress` is called for all that comes, comments too.

    Raises WorkerError if the connection breaks.
    """
    splitter = EventSplitter()
    try:
        async for chunk in response.content.iter_any():
            progress()
            for data in splitter.feed(chunk):
                yield data
    except (aiohttp.ClientError, OSError) as error:
        raise WorkerError(_LEFT_THE_WORKER, status=502, code="worker_lost") from error


async def whole(response: aiohttp.ClientResponse, progress: Callable[[], None]) -> bytes:
    """The body of an answer that is not streamed. Raises WorkerError if the connection breaks.

    Nobody can see whether such an answer gets on; `progress` is called as long as the connection stands.
    """
    reading = asyncio.ensure_future(response.read())
    try:
        while not (await asyncio.wait({reading}, timeout=PROGRESS_INTERVAL))[0]:
            progress()
        return reading.result()
    except (aiohttp.ClientError, OSError) as error:
        raise WorkerError(_LEFT_THE_WORKER, status=502, code="worker_lost") from error
    finally:
        reading.cancel()


def truncated() -> WorkerError:
    """For a stream that ended without its end mark."""
    return WorkerError(_LEFT_THE_WORKER, status=502, code="worker_lost")


def broken(error: BrokenAnswerError) -> WorkerError:
    """For an answer that is not what it should be."""
    return WorkerError(f"the worker's answer was broken: {error}", status=502, code="bad_answer")


async def _refused(response: aiohttp.ClientResponse) -> DraftdError:
    """mlx_lm.server says 404 for whatever goes wrong while it reads a request; only some of it is the client's."""
    try:
        raw = await response.content.read(MAX_ERROR)
    except (aiohttp.ClientError, OSError):
        raw = b""
    message = _message(raw) or f"the worker answered with status {response.status}"
    if "generation thread died" in message:
        return WorkerError("the worker's generation thread died", status=502, code="worker_lost")
    if response.status in {400, 404, 422}:
        return RequestError(400, message)
    if response.status in {429, 503}:
        return WorkerError(message, retry_after=1)
    return WorkerError(message, status=502, code="bad_answer")


def _message(raw: bytes) -> str:
    """The text of `{"error": "..."}` or `{"error": {"message": "..."}}`."""
    try:
        error = json.loads(raw)["error"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)
