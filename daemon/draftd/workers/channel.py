"""The daemon's end of the channel to one engine: it sends the secret of the start and the engine's share of memory,
and receives the engine's records.

Each start has a secret of its own, which only this process and the engine know: it is in no argument, variable,
file or log. The socket's buffer holds what is sent until the child reads it, so nothing waits here.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress

OnRecord = Callable[[bytes], None]

MAX_READ = 8192  # bytes in one turn of the loop
MAX_RECORD = 64 * 1024  # bytes; no engine of ours sends anything longer


class Channel:
    """`on_record` gets each line that the engine writes. Give `theirs` to the child, then `open` it.

    Raises OSError if there is no file descriptor left.
    """

    def __init__(self, on_record: OnRecord) -> None:
        self.on_record = on_record
        self.secret = secrets.token_urlsafe(32)
        self._loop = asyncio.get_running_loop()
        self._ours, self.theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._ours.send(self.secret.encode() + b"\n")
        self._held = b""

    def open(self) -> None:
        """The child has `theirs`: close our copy of it, and listen."""
        self.theirs.close()
        self._loop.add_reader(self._ours.fileno(), self._read)

    def send(self, line: bytes) -> None:
        """Write a line. It is lost if the child has ended, or does not read."""
        with suppress(OSError):
            self._ours.send(line)

    def read_all(self) -> None:
        """Hand on all that is there; for when the child has ended."""
        while self._read():
            pass

    def close(self) -> None:
        """Let go of both ends. Idempotent."""
        if self._ours.fileno() >= 0:
            self._loop.remove_reader(self._ours.fileno())
        self._ours.close()
        self.theirs.close()

    def _read(self) -> bool:
        """Hand on a piece; returns whether there may be more."""
        if self._ours.fileno() < 0:
            return False
        try:
            data = self._ours.recv(MAX_READ)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # the child ended before it had read the secret
            data = b""
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            self.on_record(line)
        if not data or len(self._held) > MAX_RECORD:
            self.close()
        return bool(data)
