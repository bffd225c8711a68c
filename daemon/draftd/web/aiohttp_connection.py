"""A connection that aiohttp reads: what its parser is given, and when; and the answer to what is not HTTP.

Theory of operation. aiohttp parses whatever has arrived. It would forget requests that arrive in one piece with
something that is not HTTP, and it would stop reading once there are many requests, or a large one: nobody would
notice when the client leaves. So its parser gets one head at a time, the next when the request before it has been
answered; what arrives in the meantime waits here, up to MAX_READ_AHEAD.
"""

from __future__ import annotations

import asyncio
import json
import logging

from aiohttp import hdrs, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from draftd import clock
from draftd.errors import RequestError
from draftd.web.client import JSON, MAX_HEADERS, MAX_READ_AHEAD, Limits
from draftd.web.error_bodies import error_body
from draftd.web.pipeline import identity

MAX_LINE = 8190  # bytes of a request line
MAX_FIELD = 8192  # bytes of a header with its name; not MAX_LINE, so that errors tell which it was
MAX_PIECES = 64  # parsed in one turn of the loop: a body may be full of what looks like the end of a head
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
        self._unparsed = bytearray()
        self._newest = b""  # the last bytes that were parsed: the end of a head may come in two parts
        self._body: StreamReader = EMPTY_PAYLOAD  # of the request that came last
        self._left = 0  # bytes of it that have not come, if it has a length
        self._in_work = False

    def data_received(self, data: bytes) -> None:
        """Take in what has come; aiohttp calls it without data when it can go on with a body."""
        if not data:
            super().data_received(data)
        self._unparsed += data
        self._parse()

    def _process_keepalive(self) -> None:
        """aiohttp's timer. What came while the loop was held up is read before the connection counts as idle."""
        self._keepalive_handle = self._loop.call_later(clock.TURN, super()._process_keepalive)

    def answered(self) -> None:
        """The request in work has been answered: go on with those behind it."""
        self._in_work = False
        self._parse()

    def _parse(self) -> None:
        for _ in range(MAX_PIECES):
            if not self._unparsed or self._reading_paused or not self._takes_more():
                break
            self._parse_next()
        else:
            self._pause_for_others()
            return
        if self.transport is not None and not self._reading_paused:
            if len(self._unparsed) > MAX_READ_AHEAD:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _pause_for_others(self) -> None:
        """Go on in the loop's next turn."""
        if self.transport is not None:
            self.transport.pause_reading()
            self._loop.call_soon(self._parse)

    def _parse_next(self) -> None:
        size = self._next_size()
        piece = bytes(self._unparsed[:size])
        del self._unparsed[:size]
        self._newest = (self._newest + piece[1 - len(HEAD_END) :])[1 - len(HEAD_END) :]
        super().data_received(piece)
        if self._left:
            self._left -= size
        elif self._messages:
            message, body = self._messages[-1]
            if not isinstance(message, RawRequestMessage) and not self._body.is_eof():
                self._body.set_exception(web.RequestPayloadError())  # aiohttp would let its reader wait
            self._body, self._left, self._in_work = body, _length(message), True

    def _takes_more(self) -> bool:
        """Whether the next bytes are of a body, or of a head whose turn it is."""
        return not self._in_work or self._left > 0 or not self._body.is_eof()

    def _next_size(self) -> int:
        """How many of the next bytes are of one body with a length, or come up to where a head may end."""
        if self._left:
            return min(self._left, len(self._unparsed))
        start = self._newest + bytes(self._unparsed[: len(HEAD_END) - 1])
        if (found := start.find(HEAD_END)) >= 0:
            return found + len(HEAD_END) - len(self._newest)
        found = self._unparsed.find(HEAD_END)
        return found + len(HEAD_END) if found >= 0 else len(self._unparsed)

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


def _length(message: object) -> int:
    """The length of a request's body as its headers tell; 0 if they do not."""
    if not isinstance(message, RawRequestMessage) or message.chunked:
        return 0
    return int(message.headers.get(hdrs.CONTENT_LENGTH, 0))


def _why_not(exc: BaseException | None) -> RequestError:
    """What aiohttp could not read."""
    said = str(exc)
    if isinstance(exc, LineTooLong) and exc.args[1] == MAX_LINE:
        return RequestError(414, f"the request line is longer than {MAX_LINE} bytes", code="uri_too_long")
    if isinstance(exc, LineTooLong):
        # Browsers send the cookies of every program on this host, whatever its port.
        text = (
            f"a header is longer than {MAX_FIELD} bytes; it often holds cookies that other programs have set"
        )
        return RequestError(431, text, code="header_too_large")
    if "Too many headers" in said:
        return RequestError(431, f"there are more than {MAX_HEADERS} headers", code="header_too_large")
    if "HTTP version" in said:
        return unknown_version()
    return RequestError(400, "this is not an HTTP request")


def unknown_version() -> RequestError:
    """The error for a version of HTTP that is not spoken here."""
    return RequestError(505, "draftd speaks HTTP/1.1 and HTTP/1.0", code="http_version_not_supported")
