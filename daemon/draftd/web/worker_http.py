"""One request to a worker and its answer: send it, read it, and say honestly what went wrong.

Theory of operation. Each request has a connection of its own, as mlx_lm.server closes it after the answer. Only
what a worker on this machine needs is done here: a connection over loopback is established at once, and a request
fits into the kernel's buffer. So usually there is nothing to wait for but the answer.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

import httptools

from draftd import clock
from draftd.errors import WorkerError
from draftd.peers.bodies import Body, Stored
from draftd.web.answer_models import BrokenAnswerError
from draftd.web.client import JSON
from draftd.web.worker_errors import refusal
from draftd.workers.command import HOST

MAX_READ = 64 * 1024  # bytes
# A read this large holds several tokens: the stream is much faster than we read it. The next read waits a little,
# so that one wake-up (ours, the worker's, the client's) serves many tokens: 1.4 times the events per second.
BURST = 2048  # bytes
BURST_PAUSE = 0.002  # seconds
MAX_BUFFERED = 4 * MAX_READ  # bytes of an answer that wait here for a client that reads slowly
MAX_HEADERS = 1000  # of an answer that are looked at
MAX_ERROR = 64 * 1024  # bytes of an error's body that are read
ERROR_TIMEOUT = 5.0  # seconds that an error's body may take; a server may keep its connection
CONNECT_TIMEOUT = 5.0  # seconds
BEFORE, IN_THE_MIDDLE = "before it answered", "in the middle of its answer"
_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: {kind}\r\n"
    "Content-Length: {length}\r\nConnection: close\r\n{more}\r\n"
)


class NotSentError(WorkerError):
    """Nobody took the connection: nothing was sent, so the request may be sent again."""


class NotHTTPError(OSError):
    """What comes over the connection cannot be read."""


class BrokenOffError(WorkerError):
    """The connection ended before the answer did: BEFORE the answer began, or IN_THE_MIDDLE of it.

    Whether the worker has ended as well is not known here. The message is for one that has not.
    """

    def __init__(self, when: str, message: str = "") -> None:
        super().__init__(message or f"the worker broke off {when}", status=502, code="bad_answer")
        self.when = when

    def ended(self) -> WorkerError:
        """The error for a worker that has ended."""
        return WorkerError(f"the worker ended {self.when}", status=502, code="worker_lost")


async def post(
    port: int, path: str, payload: Body, headers: Mapping[str, str], kind: str = JSON
) -> WorkerConnection:
    """Send a request; returns its connection once the worker has answered with status 2xx. Close it in the end.

    `headers` are added to those that every request has; `kind` is the payload's content type. Raises NotSentError,
    RequestError or WorkerError.
    """
    connection = await connect(port)
    try:
        await connection.send(port, path, payload, headers, kind)
        if not 200 <= connection.status < 300:
            body = await connection.read_error()
            raise refusal(connection.status, connection.headers, body, time.time())
    except BaseException:
        connection.close()
        raise
    return connection


async def connect(port: int) -> WorkerConnection:
    """A connection to a worker. Raises NotSentError if nobody accepts it, or if no file descriptor is left."""
    try:
        connection = WorkerConnection()
        try:
            await connection.connect(port)
        except BaseException:
            connection.close()
            raise
    except OSError as error:
        raise NotSentError(f"no connection to the worker: {error.strerror}", retry_after=1) from error
    return connection


class WorkerConnection:
    """Made by `connect`. Call `send` once, then `read` the answer; `close` it whatever happens."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._socket = socket.socket()
        self._reading = False
        self._pause: asyncio.TimerHandle | None = None
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._ended = False
        self._error: OSError | None = None
        self._news: asyncio.Future[None] | None = None
        self.status = 0  # until the headers have come
        self.headers: dict[
            str, str
        ] = {}  # of the answer, by their names in lower case; the first of each name
        self.complete = False  # whether it has come to an end that its headers or chunks announced

    async def connect(self, port: int) -> None:
        """Raises OSError."""
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = self._socket.connect_ex((HOST, port))
        if error == errno.EINPROGRESS:
            error = 0 if _is_connected(self._socket) else await self._outcome()
        if error:
            raise OSError(error, "no connection")

    async def _outcome(self) -> int:
        """What becomes of a connection that takes a while: 0, or an errno."""
        writable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._socket.fileno(), _set, writable)
        try:
            async with clock.limit(CONNECT_TIMEOUT):
                await writable
        finally:
            self._loop.remove_writer(self._socket.fileno())
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    async def send(
        self, port: int, path: str, payload: Body, headers: Mapping[str, str], kind: str = JSON
    ) -> None:
        """Send the request and wait for the headers of the answer. Raises BrokenOffError if they do not come."""
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = _HEAD.format(path=path, host=HOST, port=port, length=len(payload), kind=kind, more=more)
        data = head.encode() + (payload if isinstance(payload, bytes) else b"")
        try:
            sent = self._socket.send(data)
            self._read_on()
            if sent < len(data):
                await self._loop.sock_sendall(self._socket, memoryview(data)[sent:])
            if not isinstance(payload, bytes):
                await self._send_pieces(payload)
            while not self.status and not self._ended:
                await self._until_news()
            if not self.status:
                raise self._error or ConnectionResetError("no answer")
        except OSError as error:
            raise BrokenOffError(BEFORE, _not_http(error)) from error

    async def _send_pieces(self, payload: Stored) -> None:
        """Send a body that is not in memory, up to where the worker has heard enough: it may refuse a large one."""
        with suppress(BrokenPipeError, ConnectionResetError):
            async for piece in payload.pieces():
                if self.status or self._ended:
                    return
                await self._loop.sock_sendall(self._socket, piece)

    async def read(self) -> bytes:
        """What has come since the last call, or comes next; b"" at the end. Raises BrokenOffError."""
        while not self._chunks and not self._ended:
            await self._until_news()
        if not self._chunks and self._error is not None:
            raise BrokenOffError(IN_THE_MIDDLE) from self._error
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        self._read_on()
        return data

    async def read_error(self) -> bytes:
        """The body of an error, or what comes of it."""
        body = bytearray()
        with suppress(BrokenOffError, TimeoutError):
            async with clock.limit(ERROR_TIMEOUT):
                while len(body) < MAX_ERROR and (piece := await self.read()):
                    body += piece
        return bytes(body)

    def close(self) -> None:
        """Break the connection off, if it is still open."""
        self._stop_reading()
        if self._pause is not None:
            self._pause.cancel()
        self._loop.call_soon(self._socket.close)  # nobody waits for it: the answer's last bytes go first

    async def _until_news(self) -> None:
        self._news = self._loop.create_future()
        await self._news

    def _read_on(self) -> None:
        waits = self._pause is not None or self._buffered > MAX_BUFFERED
        if not self._reading and not self._ended and not waits:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)
            self._reading = True

    def _stop_reading(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._socket.fileno())
            self._reading = False

    def _after_pause(self) -> None:
        self._pause = None
        self._read_on()

    def _on_readable(self) -> None:
        try:
            if data := self._socket.recv(MAX_READ):
                self._parser.feed_data(data)
                if len(data) >= BURST:
                    self._pause = self._loop.call_later(BURST_PAUSE, self._after_pause)
            else:
                self._ended = True  # perhaps the worker's end too: whoever reads can tell whether this is all
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._error, self._ended = error, True
        except httptools.HttpParserError as error:
            if not self._ended:
                self._error, self._ended = NotHTTPError(f"the worker does not speak HTTP: {error}"), True
        if self._ended or self._pause is not None or self._buffered > MAX_BUFFERED:
            self._stop_reading()
        if self._news is not None:
            _set(self._news)

    # --- called by the parser -------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; trailers, which follow the body, are ignored."""
        if not self.status and len(self.headers) < MAX_HEADERS:
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1").strip())

    def on_headers_complete(self) -> None:
        """The status is known, unless it is one of those that come before the answer (1xx): their headers go."""
        status = self._parser.get_status_code()
        self.status = status if status >= 200 else 0
        if not self.status:
            self.headers.clear()

    def on_body(self, data: bytes) -> None:
        """A piece of the body, without the marks of its chunks."""
        self._chunks.append(data)
        self._buffered += len(data)

    def on_message_complete(self) -> None:
        """The end of an answer that has a length or chunks."""
        self._ended = self.complete = self.status > 0


def _not_http(error: OSError) -> str:
    return "what the worker answered is not HTTP" if isinstance(error, NotHTTPError) else ""


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def broken(error: BrokenAnswerError) -> WorkerError:
    """The error for an answer that is not what it should be."""
    return WorkerError(f"the worker's answer was broken: {error}", status=502, code="bad_answer")
