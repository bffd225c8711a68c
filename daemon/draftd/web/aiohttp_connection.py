"""A connection that aiohttp reads: what it is fed with, and what it answers to what is not HTTP."""

from __future__ import annotations

import asyncio
import json
import logging

from aiohttp import hdrs, web
from aiohttp.http_exceptions import LineTooLong

from draftd.errors import RequestError
from draftd.web.client import JSON, MAX_HEADERS, Limits
from draftd.web.error_bodies import error_body
from draftd.web.pipeline import identity

MAX_LINE = 8190  # bytes of a request line
MAX_FIELD = 8192  # bytes of a header with its name; not MAX_LINE, so that errors tell which it was
MAX_PIECES = 64  # in which what a client sends at once is parsed
MAX_LINGER = 2.0  # seconds that a refused client may go on sending before its connection is closed
HEAD_END = b"\r\n\r\n"
_SILENT = logging.getLogger("draftd.http")
_SILENT.setLevel(logging.CRITICAL)


class AiohttpConnection(web.RequestHandler):
    """A connection to the server of `aiohttp_app`.

    The pipeline logs what handlers raise. What is left to log are requests that are not HTTP, and aiohttp would log
    their headers, which may hold a key.
    """

    def __init__(self, server: web.Server, limits: Limits) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=_SILENT,
            logger=_SILENT,
            keepalive_timeout=limits.idle,
            lingering_time=MAX_LINGER,
            max_line_size=MAX_LINE,
            max_field_size=MAX_FIELD,
            max_headers=MAX_HEADERS,
        )

    def data_received(self, data: bytes) -> None:
        """Parse head by head: the parser forgets the requests that stand in one piece with what is not HTTP."""
        *heads, rest = data.split(HEAD_END, MAX_PIECES)
        for head in heads:
            super().data_received(head + HEAD_END)
        if rest or not heads:
            super().data_received(rest)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP. Unlike aiohttp's, the text does not quote the request."""
        error = _why_not(exc)
        body = json.dumps(error_body(error)).encode()
        response = web.Response(
            body=body, status=error.status, headers=identity() | {hdrs.CONTENT_TYPE: JSON}
        )
        response.force_close()
        return response


def _why_not(exc: BaseException | None) -> RequestError:
    """What aiohttp could not read."""
    said = str(exc)
    if isinstance(exc, LineTooLong) and exc.args[1] == MAX_LINE:
        return RequestError(414, f"the request line is longer than {MAX_LINE} bytes", code="uri_too_long")
    if isinstance(exc, LineTooLong):
        # Browsers send what any program on this host has set, whatever its port.
        text = (
            f"a header is longer than {MAX_FIELD} bytes; often these are cookies that other programs have set"
        )
        return RequestError(431, text, code="header_too_large")
    if "Too many headers" in said:
        return RequestError(431, f"there are more than {MAX_HEADERS} headers", code="header_too_large")
    if "HTTP version" in said:
        return unknown_version()
    return RequestError(400, "this is not a request in HTTP")


def unknown_version() -> RequestError:
    """The error for a version of HTTP that is not spoken here."""
    return RequestError(505, "draftd speaks HTTP/1.1 and HTTP/1.0", code="http_version_not_supported")
