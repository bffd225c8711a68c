"""Loaded by every Python that the soak starts: a worker notes in a file which marked requests it was sent.

A worker's log holds no prompts, so nothing else can prove that no request reached a worker twice.
"""

import os
import re
import socketserver
from typing import Any

RECORD = os.environ.get("SOAK_RECORD")
MARKER = re.compile(rb"marker-[0-9a-f]{16}")


class _Tap:
    """A connection's input; everything but `read`, which is used for bodies only, is the input's own."""

    def __init__(self, inner: Any, record: str) -> None:
        self._inner = inner
        self._record = record

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._inner.read(size)
        with open(self._record, "ab") as file:
            file.write(b"".join(marker + b"\n" for marker in MARKER.findall(data)))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _listen_in(record: str) -> None:
    handler: Any = socketserver.StreamRequestHandler
    setup = handler.setup

    def setup_and_tap(self: Any) -> None:
        setup(self)
        self.rfile = _Tap(self.rfile, record)

    handler.setup = setup_and_tap


if RECORD:
    _listen_in(RECORD)
