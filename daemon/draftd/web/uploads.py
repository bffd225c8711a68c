"""Bodies that are passed on and may be too large for memory: they wait in a file while their request waits.

Theory of operation. A recording of an hour has some hundred megabytes. Its request is routed by the model's name,
which may stand at the end of it, and then may have to wait for its turn. So what comes is written to a file, and
sent from there when its turn has come: a slow client keeps nobody else waiting, and the body may be sent to another
machine if the first one refuses it. The file has no name: whatever happens, nothing of it is left.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from draftd.errors import WorkerError
from draftd.peers.bodies import UnreadableError
from draftd.web.addresses import passed_kind
from draftd.web.client import JSON, RequestHead
from draftd.web.form_model import FormModel
from draftd.web.passed_on import FORM, kind_of

IN_MEMORY = 256 * 1024  # bytes; a smaller body takes no file
PIECE = 1024 * 1024  # bytes that are written or read at once
MAX_NAME = 10_000  # bytes
Result = TypeVar("Result")


def is_upload(head: RequestHead) -> bool:
    """Whether the body of a request is kept in a file; JSON is not, since it is read as a whole."""
    told = head.headers.get("Content-Type", "")
    unknown = "Transfer-Encoding" in head.headers
    return (
        passed_kind(head.path) is not None and kind_of(told) != JSON and (unknown or head.length > IN_MEMORY)
    )


class Upload:
    """A body in a file. `place` is where the model's name stands in it, if it is a form that has one, and `instead`
    what is sent in its place; as it is, if that is empty. `close` it in the end.
    """

    def __init__(self, file: BinaryIO, size: int, place: slice | None, instead: bytes = b"") -> None:
        self._file = file
        self._size = size
        self._instead = instead
        self.place = place

    def __len__(self) -> int:
        """How many bytes are sent."""
        return self._size + len(self._instead) - len(self._cut)

    @property
    def _cut(self) -> range:
        """What is left out."""
        place = self.place
        return range(place.start, place.stop) if place and self._instead else range(self._size, self._size)

    def name(self, place: slice) -> bytes:
        """What came there; as much of it as a name may have. Raises UnreadableError."""
        try:
            return os.pread(self._file.fileno(), min(MAX_NAME, place.stop - place.start), place.start)
        except OSError as error:
            raise _not_read(error.strerror or str(error)) from error

    def renamed(self, model: bytes) -> Upload:
        """The same with another name for the model; closing one closes both."""
        return Upload(self._file, self._size, self.place, model)

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it from its beginning. Raises UnreadableError."""
        async for piece in self._read(0, self._cut.start):
            yield piece
        if self._instead:
            yield self._instead
        async for piece in self._read(self._cut.stop, self._size):
            yield piece

    async def _read(self, start: int, end: int) -> AsyncIterator[bytes]:
        while start < end:
            try:
                piece = await _in_a_thread(os.pread, self._file.fileno(), min(PIECE, end - start), start)
            except OSError as error:
                raise _not_read(error.strerror or str(error)) from error
            if not piece:
                raise _not_read("it has lost its end")
            start += len(piece)
            yield piece

    def close(self) -> None:
        """Give the file up."""
        self._file.close()


async def kept_in_a_file(pieces: AsyncIterator[bytes], content_type: str, folder: Path) -> Upload:
    """The body that comes in these pieces. Raises RequestError, and WorkerError (507) if it cannot be kept."""
    form = FormModel(content_type) if kind_of(content_type) == FORM else None
    try:
        file: BinaryIO = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # the Upload closes it
    except OSError as error:
        raise _not_kept(folder, error) from error
    try:
        size, waiting = 0, bytearray()
        async for piece in pieces:
            if form:
                form.take(piece)
            waiting += piece
            if len(waiting) >= PIECE:
                size += await _write(file, waiting, folder)
        size += await _write(file, waiting, folder)
        return Upload(file, size, form.place if form else None)
    except BaseException:
        file.close()
        raise


async def _write(file: BinaryIO, waiting: bytearray, folder: Path) -> int:
    """Write what waits; returns how much it was."""
    data = bytes(waiting)
    waiting.clear()
    try:
        await _in_a_thread(_write_all, file, data)
    except OSError as error:
        raise _not_kept(folder, error) from error
    return len(data)


def _write_all(file: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


async def _in_a_thread(work: Callable[..., Result], *arguments: Any) -> Result:
    """A disk may be slow. Cancelled, it still waits for the thread, whose file is about to be closed."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


def _not_read(reason: str) -> UnreadableError:
    """It is no OSError: those are the worker's, when it breaks off."""
    text = f"the file in which the body waited for its turn cannot be read: {reason}"
    return UnreadableError(text, status=507, code="no_space")


def _not_kept(folder: Path, error: OSError) -> WorkerError:
    text = f"the body cannot be kept in {folder} until its turn comes: {error.strerror or error}"
    return WorkerError(text, status=507, code="no_space")
