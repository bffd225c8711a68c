"""Files where others may have put something else: read without hanging, written without following a link.

A named pipe in place of a file would hold up whoever opens it forever; a link in the state folder would let whoever
made it choose the file that is written.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from draftd.errors import ConfigError

PRIVATE, PRIVATE_FOLDER = 0o600, 0o700
MAX_CONFIG = 128 << 10  # bytes of a file that a person writes: the daemon reads it between two requests
MAX_TEXT = 16 << 20  # bytes of any other: one that somebody made enormous would take all memory
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


def looks(path: Path) -> tuple[object, ...]:
    """What changes when the file that a path leads to is edited or replaced; nothing if there is none."""
    try:
        status = path.stat()
    except OSError:  # it has just gone, or is a link to nowhere
        return ()
    return ((str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns),)


def read_text(path: Path, *, links: bool = True, most: int = MAX_TEXT) -> str:
    """The text of a file, with or without a byte order mark; every line break is a newline.

    With `links` a symbolic link to a file is as good. Raises OSError, whose `strerror` says what it is if it is not
    a file, or has more than `most` bytes, and UnicodeDecodeError if the text is not UTF-8.
    """
    with os.fdopen(open_file(path, os.O_RDONLY, links=links), "r", encoding="utf-8-sig") as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {_size(most)}", str(path))
        return file.read()


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; a symbolic link to a file is as good. Raises OSError as `read_text` does."""
    with os.fdopen(open_file(path, os.O_RDONLY, links=True), "rb") as file:
        return file.read()


def open_file(path: Path, flags: int, *, links: bool) -> int:
    """A descriptor of a regular file, made with mode 0600 if `flags` have O_CREAT. Never waits. Raises OSError."""
    with suppress(FileNotFoundError):  # before it is opened: that alone may make a device act
        _check_kind(path, os.stat(path, follow_symlinks=links))
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    fd = os.open(path, flags, PRIVATE)
    try:
        _check_kind(path, os.fstat(fd))
    except OSError:
        os.close(fd)
        raise
    return fd


def _check_kind(path: Path, status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'no file')}, not a file", str(path))


def write_private(path: Path, text: str) -> None:
    """Put a file of mode 0600 at `path`, whole or not at all; a link there is replaced. Raises OSError."""
    made = path.with_name(f"{path.name}.new")
    with suppress(FileNotFoundError):
        made.unlink()  # left by a writer that did not get that far
    fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    made.replace(path)


def make_private_folder(folder: Path) -> None:
    """Make `folder`, or see that it is ours alone. Raises ConfigError if it is not, and OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    check_private_folder(folder)
    folder.chmod(PRIVATE_FOLDER)


def make_private(path: Path) -> None:
    """Hide a file of ours from others. What is not a file, or not ours, is left alone. Raises OSError."""
    status = path.lstat()
    others = stat.S_IMODE(status.st_mode) & ~PRIVATE
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and others:
        path.chmod(PRIVATE)


def check_private_folder(folder: Path) -> None:
    """Raise ConfigError if others can write in `folder`: its files could be theirs. OSError if it is missing."""
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"the state folder {folder} belongs to another user; choose another with --state-dir"
        )
    if status.st_mode & _WRITABLE_BY_OTHERS:
        raise ConfigError(
            f"others can write in the state folder {folder}; look at what is in it, then: chmod 700 {folder}"
        )


def hold_streams() -> None:
    """Open /dev/null in the place of stdin, stdout or stderr where they are closed: else the next files and sockets
    that are opened get their numbers, and whatever is written there, by us or by our children.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def absolute(path: Path) -> Path:
    """'~' and '..' are resolved as text: a link keeps its name, and so its neighbours. Raises ValueError."""
    try:
        return Path(os.path.abspath(path.expanduser()))
    except RuntimeError:
        raise ValueError(f"there is no user {path.parts[0]}") from None
    except FileNotFoundError:
        raise ValueError(
            "the folder that draftd was started in is gone: give this one as an absolute path"
        ) from None
