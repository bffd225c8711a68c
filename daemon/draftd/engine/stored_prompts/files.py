"""The folder of stored prompts: files that are whole or not there, ours alone, and not more than fit.

A file is written beside its place and renamed, so that none is ever half there under its own name. While it is
written its engine holds a lock on it: one without was left by a killed engine, whatever process has its number by
now, and is swept by the next. Several engines may use the folder: whoever adds a file holds the folder's lock, and
any file may have gone by the time that it is read. A file that is not what it should be is removed; one that cannot
be read for now, since descriptors or memory are short or the disk does not answer, is left for another time.
"""

import errno
import fcntl
import json
import os
import stat
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from draftd.engine.stored_prompts.choice import (
    TOKEN_BYTES,
    File,
    Stored,
    beginning_of_name,
    name_of,
    to_evict,
)
from draftd.protocol import (
    PROMPT_CACHE_MAGIC,
    PROMPT_CACHE_SUFFIX,
    REFUSED,
    STORED,
    read_prompt_cache_header,
)

PRIVATE, PRIVATE_FOLDER = 0o600, 0o700
LOCK = "lock"
UNFINISHED = ".unfinished"  # the end of a name, after the number of the process that writes it
CHECK_BYTES = 4


class DamagedError(ValueError):
    """A file is not what it should be. The text says in what."""


class StoredFiles:
    """The files for one `identity` in a folder; `say` gets what a person should know, `report` that a file was
    STORED or REFUSED.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        identity: str,
        say: Callable[[str], None],
        report: Callable[[str], None],
    ) -> None:
        self.max_bytes = max_bytes
        self._folder = folder
        self._identity = identity
        self._say = say
        self._report = report
        self._known: dict[str, Stored] = {}
        self._said_unread: set[str] = set()  # why files could not be read

    def prepare(self) -> None:
        """Make the folder, and sweep it. Raise OSError, and DamagedError if it is not ours alone."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
        status = self._folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise DamagedError(f"{self._folder} is not a folder of ours")
        self._folder.chmod(PRIVATE_FOLDER)
        if any(self._folder.glob(f"*{UNFINISHED}")):
            with self._locked():
                self._sweep()

    def _sweep(self) -> None:
        """Remove what nobody writes any more. With the folder's lock held, so that none is just being begun."""
        for path in self._folder.glob(f"*{UNFINISHED}"):
            with suppress(OSError):
                with os.fdopen(
                    os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                ) as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)

    def look(self) -> dict[str, Stored]:
        """Return what there is by now, by the files' names. Only what is new is read, and of that no layers."""
        if not self._folder.exists():  # cleaners of temporary files sweep whole folders
            self.prepare()
        beginning = beginning_of_name(self._identity)
        names = {name for name in os.listdir(self._folder) if name.startswith(beginning) and _is_stored(name)}
        self._known = {name: stored for name, stored in self._known.items() if name in names}
        for name in names - self._known.keys():
            with self._removing(name), self._opened(name) as file:
                header = read_prompt_cache_header(file)
                self._known[name] = self._stored(name, header, file)
        return self._known

    def read(self, name: str) -> tuple[dict[str, Any], memoryview] | None:
        """Return the header and the layers' arrays of a file, and mark it as used; None if it is of no use."""
        with self._removing(name), self._opened(name) as file:
            whole = memoryview(file.read())
            if zlib.crc32(whole[:-CHECK_BYTES]) != int.from_bytes(whole[-CHECK_BYTES:], "little"):
                raise DamagedError("its check sum is wrong")
            file.seek(0)
            header = read_prompt_cache_header(file)
            stored = self._stored(name, header, file)
            os.utime(file.fileno())
            begin = file.tell()
            if stored.tokens != bytes(whole[begin - len(stored.tokens) : begin]):
                raise DamagedError("it changed meanwhile")
            return header, whole[begin:-CHECK_BYTES]
        return None

    def discard(self, name: str, reason: object) -> None:
        """Remove a file that is not what it should be, and say so."""
        (self._folder / name).unlink(missing_ok=True)
        self._known.pop(name, None)
        self._say(f"the stored prompt {name} was removed: {reason}")
        self._report(REFUSED)

    def write(
        self, header: dict[str, Any], tokens: bytes, size: int, superseded: Collection[str]
    ) -> "NewFile":
        """Return a new file, for whose layers `size` bytes follow. When it is there, others are `superseded`."""
        whole = {**header, "identity": self._identity, "tokens": len(tokens) // TOKEN_BYTES}
        text = json.dumps(whole).encode()
        start = PROMPT_CACHE_MAGIC + len(text).to_bytes(8, "little") + text + tokens
        name = name_of(self._identity, tokens)
        return NewFile(self, self._folder, name, start, len(start) + size + CHECK_BYTES, superseded)

    @contextmanager
    def room_for(self, size: int, superseded: Collection[str]) -> Iterator[None]:
        """Remove what was least recently used until `size` bytes fit, and let nobody else add any meanwhile.

        What is `superseded` is left, as if it took no room: a new file takes its place when it is whole. Until then
        the folder may hold that much more than its bound.
        """
        with self._locked():
            for name in to_evict(self._files(), self.max_bytes, size, superseded):
                (self._folder / name).unlink(missing_ok=True)
            yield

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
        with os.fdopen(fd, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _files(self) -> Iterator[File]:
        for entry in os.scandir(self._folder):
            if _is_stored(entry.name):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield File(entry.name, status.st_size, status.st_mtime)

    def _stored(self, name: str, header: dict[str, Any], file: IO[bytes]) -> Stored:
        """Read the tokens that follow the header, and see that all of it fits the name."""
        if header.get("identity") != self._identity:
            raise DamagedError("it is of other models or settings")
        count, reach = header.get("tokens"), header.get("reach")
        if type(count) is not int or type(reach) is not int or not 0 <= reach <= count:
            raise DamagedError("its header is not complete")
        size = os.fstat(file.fileno()).st_size
        if count * TOKEN_BYTES > size:
            raise DamagedError("it is too short for its tokens")
        tokens = file.read(count * TOKEN_BYTES)
        if name_of(self._identity, tokens) != name:
            raise DamagedError("its tokens are not those of its name")
        return Stored(tokens, reach, size)

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        fd = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise DamagedError("it is not a file of ours alone")
            yield file

    @contextmanager
    def _removing(self, name: str) -> Iterator[None]:
        """Remove the file if it is damaged. One that has gone meanwhile, or cannot be read for now, is none."""
        try:
            yield
        except FileNotFoundError:
            self._known.pop(name, None)
        except (ValueError, RecursionError) as error:
            self.discard(name, error)
        except OSError as error:
            if error.errno == errno.ELOOP:  # it is a link
                self.discard(name, error)
            else:
                self._leave(name, error)

    def _leave(self, name: str, error: OSError) -> None:
        """Do without a file for now, and say so. Each reason is said once: a shortage strikes all files alike."""
        self._known.pop(name, None)
        reason = error.strerror or str(error)
        if reason not in self._said_unread:
            self._said_unread.add(reason)
            self._say(f"a stored prompt could not be read, and is kept: {reason}")


class NewFile:
    """A file that is being written. The first error abandons it, and is said. For one thread."""

    def __init__(
        self,
        files: StoredFiles,
        folder: Path,
        name: str,
        start: bytes,
        size: int,
        superseded: Collection[str],
    ) -> None:
        self._files, self._folder, self._name = files, folder, name
        self._start, self.size = start, size
        self._superseded = {*superseded, name}  # one of its own name gives way to it as well
        self._made = folder / f"{name}.{os.getpid()}{UNFINISHED}"
        self._file: IO[bytes] | None = None
        self._sum = 0

    def begin(self) -> None:
        """Make room, and write all that comes before the arrays."""
        with self._abandoning():
            with self._files.room_for(self.size, self._superseded):
                self._made.unlink(missing_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.fdopen(os.open(self._made, flags, PRIVATE), "wb")
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._append(self._start)

    def append(self, piece: memoryview) -> None:
        """Write the next piece of the arrays."""
        if self._file is not None:
            with self._abandoning():
                self._append(piece)

    def finish(self) -> None:
        """Put the file in its place, and remove those that it makes superfluous."""
        if self._file is None:
            return
        with self._abandoning():
            self._file.write(self._sum.to_bytes(CHECK_BYTES, "little"))
            self._file.flush()
            with self._files.room_for(self.size, self._superseded):
                self._made.replace(self._folder / self._name)
                for name in self._superseded - {self._name}:
                    (self._folder / name).unlink(missing_ok=True)
            self._file.close()  # not before: an engine that starts now would sweep what nobody holds
            self._file = None
            self._files._report(STORED)

    def abandon(self) -> None:
        """Leave nothing of it behind. Once finished, or abandoned, it stays as it is."""
        if self._file is None:
            return
        with suppress(OSError):
            self._file.close()
        self._file = None
        self._made.unlink(missing_ok=True)

    def _append(self, piece: bytes | memoryview) -> None:
        assert self._file is not None
        self._file.write(piece)
        self._sum = zlib.crc32(piece, self._sum)

    @contextmanager
    def _abandoning(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._files._say(f"a prompt cache could not be stored: {error.strerror or error}")
            self.abandon()


def _is_stored(name: str) -> bool:
    return name.endswith(PROMPT_CACHE_SUFFIX)
