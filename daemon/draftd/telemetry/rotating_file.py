"""A file that is only appended to, and renamed away when it is full: `name`, `name.1` … `name.3`, newest first.

Not `logging.handlers.RotatingFileHandler`: that one prints its errors to stderr and hides them from the caller,
cannot be told to use mode 0600, and leaves half a line behind after a full disk.
"""

import io
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from draftd.files import open_file


class RotatedFile:
    """Whole lines of bytes in files of at most `max_bytes` each, `backups` old ones kept, mode 0600.

    A single longer line gets a file of its own. The folder is made (0700) when it is missing. Any error closes
    the file; the next write opens it again, and starts on a new line if the last one was torn. So does a write that
    finds the file gone, or another one in its place. With `links` it may be a link or a device, like /dev/stdout.
    """

    def __init__(self, path: Path, *, max_bytes: int, backups: int, links: bool = False) -> None:
        self._path = path
        self._links = links
        self._max_bytes = max_bytes
        self._backups = backups
        self._fd: int | None = None
        self._size = 0

    def write(self, lines: Iterable[bytes]) -> None:
        """Append lines, each with its own newline. Raises OSError; some of the lines may then be written."""
        try:
            self._write(lines)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file; a later write opens it again."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def _write(self, lines: Iterable[bytes]) -> None:
        fd = self._open()
        batch = bytearray()
        for line in lines:
            filled = self._size + len(batch)
            if filled and filled + len(line) > self._max_bytes:
                self._append(fd, batch)
                batch.clear()
                self._rotate()
                fd = self._open()
            batch += line
        self._append(fd, batch)

    def _append(self, fd: int, data: bytes | bytearray) -> None:
        done = 0
        while done < len(data):
            done += (written := os.write(fd, data[done:]))
            self._size += written

    def _open(self) -> int:
        if self._fd is not None and self._is_in_place(self._fd):
            return self._fd
        self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        fd = os.open(self._path, flags, 0o600) if self._links else open_file(self._path, flags, links=False)
        self._fd = fd
        status = os.fstat(fd)
        self._size = status.st_size
        if stat.S_ISREG(status.st_mode):  # a link to a device keeps the device's mode
            os.fchmod(fd, 0o600)
            if self._size and os.pread(fd, 1, self._size - 1) != b"\n":
                self._append(fd, b"\n")
        return fd

    def _is_in_place(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        self.close()
        names = [self._path, *(Path(f"{self._path}.{number}") for number in range(1, self._backups + 1))]
        if not self._backups:
            self._path.unlink(missing_ok=True)
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if newer.exists():
                newer.replace(older)


class RotatedStream(io.TextIOBase):
    """A rotated file as a stream for `logging`, which writes whole messages."""

    def __init__(self, path: Path, *, max_bytes: int = 10 * 1024 * 1024, backups: int = 3) -> None:
        self._file = RotatedFile(path, max_bytes=max_bytes, backups=backups, links=True)

    def write(self, text: str) -> int:
        """Append a message with its newline. Raises OSError."""
        self._file.write([text.encode("utf-8", "backslashreplace")])
        return len(text)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        super().close()
