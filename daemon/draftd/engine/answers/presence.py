"""Notices that a client has left, and keeps a silent connection from looking dead.

The thread that answers a request waits for what the generating thread puts into a queue: the request's turn, pieces
of its prompt, tokens. Each time, and each second that nothing comes, it looks whether the client is still there. A
client that closes its side of the connection counts as gone, as in nginx; a write that fails says so as well.

Comments go to a stream only when something came: the daemon takes a worker that says nothing for stuck, and a
comment must not hide that.
"""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

LOOK_INTERVAL = 1.0  # seconds between two looks while nothing comes
COMMENT_INTERVAL = 1.0  # seconds without an event after which a token is announced by a comment
LEFT_ATTRIBUTE = "draftd_left"  # of mlx_lm's GenerationArguments: its client left before its turn

_on_silence: ContextVar[Callable[[], None]] = ContextVar("on_silence", default=lambda: None)


class LeftError(Exception):
    """Nobody waits for the answer any more."""


class Client:
    """The client's side of a request. `handler` is mlx_lm's APIHandler."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._written = time.monotonic()

    @property
    def gone(self) -> bool:
        """Whether the client has closed the connection."""
        try:
            data: bytes = self._handler.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True
        return not data

    def expect(self) -> None:
        """Raise LeftError if the client has gone."""
        if self.gone:
            raise LeftError

    def begin(
        self, set_headers: Callable[[HTTPStatus], None], status: HTTPStatus, length: int | None = None
    ) -> None:
        """Send the head of the answer, with the length of its body if that is known. Raise LeftError as `write`."""
        with _lost():
            set_headers(status)
            if length is not None:
                self._handler.send_header("Content-Length", str(length))
            self._handler.end_headers()

    def write(self, data: bytes) -> None:
        """Send something. Raise LeftError if nobody takes it."""
        with _lost():
            self._handler.wfile.write(data)
            self._handler.wfile.flush()
        self._written = time.monotonic()

    def comment_if_silent(self) -> None:
        """Send a comment if the stream has been silent for a while."""
        if time.monotonic() - self._written >= COMMENT_INTERVAL:
            self.write(b": keepalive\n\n")


@contextmanager
def _lost() -> Iterator[None]:
    """A connection that broke means that the client has left."""
    try:
        yield
    except OSError as error:
        raise LeftError from error


@contextmanager
def looking(look: Callable[[], None]) -> Iterator[None]:
    """While this thread waits for a generation, call `look` each second that nothing comes. What it raises ends the
    wait.
    """
    token = _on_silence.set(look)
    try:
        yield
    finally:
        _on_silence.reset(token)


def await_response(generator: Any, responses: Any) -> Any:
    """Take the place of `_await_response` of mlx_lm's ResponseGenerator, which waits in the same way but looks at
    nothing.
    """
    while True:
        try:
            return responses.get(timeout=LOOK_INTERVAL)
        except queue.Empty:
            if not generator.generation_available():
                raise RuntimeError("generation thread died") from None
            _on_silence.get()()
