"""One HTTP request to a worker and its answer, on a connection of its own, as mlx_lm.server closes each.

It does only what a worker on this machine asks for. A connection over loopback stands before `connect` returns,
and a request fits into the kernel's buffer: so in the usual case nothing is waited for but the answer.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections.abc import Mapping

import httptools

from draftd.workers.command import HOST

READ = 64 * 1024  # bytes
# A read this large holds several tokens: of a stream far quicker than it is read. Its next read waits, so that each
# wake-up, here, of the worker and of the client, is for many of them: 1.4 times the events per second.
MANY = 2048  # bytes
PAUSE = 0.002  # seconds
MAX_BUFFERED = 4 * READ  # of an answer that wait here for a client that reads slowly
CONNECT_TIMEOUT = 5.0  # seconds
_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    "Content-Length: {length}\r\nConnection: close\r\n{further}\r\n"
)


async def connect(port: int) -> Exchange:
    """A connection to the worker. Raises OSError if nobody takes it."""
    exchange = Exchange()
    try:
        await exchange.connect(port)
    except BaseException:
        exchange.close()
        raise
    return exchange


class Exchange:
    """Made by `connect`. Call `ask` once, then `read`; `close`, whatever happened."""

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
        self.status = 0  # until the headers came

    async def connect(self, port: int) -> None:
        """Raises OSError."""
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = self._socket.connect_ex((HOST, port))
        if error == errno.EINPROGRESS:
            if not _writable_now(self._socket):
                await self._until_writable()
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "no connection")

    async def _until_writable(self) -> None:
        writable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._socket.fileno(), _set, writable)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await writable
        finally:
            self._loop.remove_writer(self._socket.fileno())

    async def ask(self, port: int, path: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Send the request and wait for the headers. Raises OSError or EOFError if the connection ends first."""
        further = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = _HEAD.format(path=path, host=HOST, port=port, length=len(payload), further=further)
        data = head.encode() + payload
        sent = self._socket.send(data)
        self._read_on()
        if sent < len(data):
            await self._loop.sock_sendall(self._socket, memoryview(data)[sent:])
        while not self.status and not self._ended:
            await self._changed()
        if not self.status:
            raise self._error or EOFError

    async def read(self) -> bytes:
        """What has come since the last call, waiting for some; b"" at the end. Raises OSError."""
        while not self._chunks and not self._ended:
            await self._changed()
        if not self._chunks and self._error is not None:
            raise self._error
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        self._read_on()
        return data

    def close(self) -> None:
        """Break the connection off, if it still stands."""
        self._read_no_more()
        if self._pause is not None:
            self._pause.cancel()
        self._loop.call_soon(
            self._socket.close
        )  # after the answer's last bytes were sent: nobody waits for it

    async def _changed(self) -> None:
        self._news = self._loop.create_future()
        await self._news

    def _read_on(self) -> None:
        waits = self._pause is not None or self._buffered > MAX_BUFFERED
        if not self._reading and not self._ended and not waits:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)
            self._reading = True

    def _read_no_more(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._socket.fileno())
            self._reading = False

    def _after_pause(self) -> None:
        self._pause = None
        self._read_on()

    def _on_readable(self) -> None:
        try:
            if data := self._socket.recv(READ):
                self._parser.feed_data(data)
                if len(data) >= MANY:
                    self._pause = self._loop.call_later(PAUSE, self._after_pause)
            else:
                self._ended = True  # of the worker too: who reads the answer can tell whether it is whole
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._error, self._ended = error, True
        except httptools.HttpParserError as error:
            if not self._ended:
                self._error, self._ended = OSError(f"the worker speaks no HTTP: {error}"), True
        if self._ended or self._pause is not None or self._buffered > MAX_BUFFERED:
            self._read_no_more()
        if self._news is not None:
            _set(self._news)

    # --- called by the parser -------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        """The status is known."""
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """A piece of the body, freed from chunking."""
        self._chunks.append(data)
        self._buffered += len(data)

    def on_message_complete(self) -> None:
        """The end of an answer with a length."""
        self._ended = True


def _writable_now(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(0))


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
