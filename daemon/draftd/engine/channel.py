"""The engine's end of the channel to the daemon: the secret of this start and its share of the memory come over it,
and records go back.

The channel is a socket whose number is in DRAFTD_CHANNEL_FD. A secret in the arguments or in the environment could
be read by others; a pipe could be opened through /proc by any process of the same user, and a socket cannot. The
lifeline stays what it is, a pipe that nobody writes to, since commands of others hang on it as well.

An engine that was started by hand has no channel. Then it has no secret either, and answers everybody.
"""

import os
import threading
from collections.abc import Callable, MutableMapping

from draftd.engine import records
from draftd.engine.exits import EngineError
from draftd.protocol import CHANNEL_VARIABLE, EXIT_REFUSED, MemoryShare

MAX_LINE = 256  # bytes, its end included

_secret = ""
_fd: int | None = None


def hold(environ: MutableMapping[str, str]) -> None:
    """Take the channel that the environment names, if it names one, and read the secret.

    The variable is removed and the descriptor made non-inheritable, so that no process that we start can speak for
    us. Raises EngineError if there is no secret: a worker that was meant to have one must not run without it.
    """
    global _secret, _fd  # noqa: PLW0603 - a process has one channel
    number = environ.pop(CHANNEL_VARIABLE, None)
    if not number:
        return
    try:
        fd = int(number)
        os.set_inheritable(fd, False)
        _secret = _read_line(fd).decode("ascii")
    except (ValueError, OverflowError, OSError) as error:
        raise EngineError(EXIT_REFUSED, f"{CHANNEL_VARIABLE}={number} gives no secret: {error}") from error
    _fd = fd
    records.report_to(fd)


def take(secret: str) -> None:
    """Have the secret of this start, as a rank of a group, which has it from its launcher."""
    global _secret  # noqa: PLW0603 - a process has one
    _secret = secret


def secret() -> str:
    """Return what a request must know to be answered; empty if everybody is answered."""
    return _secret


def descriptor() -> int | None:
    """Return the channel, for who passes it on to ranks; None without one."""
    return _fd


def follow_shares(obey: Callable[[MemoryShare], None]) -> None:
    """Call `obey` with the share of this process before returning, and in a thread with each that comes later.

    Without a channel there is none, and nothing is called.
    """
    if _fd is not None and _next_share(_fd, obey):
        threading.Thread(target=_follow, args=(_fd, obey), name="shares", daemon=True).start()


def _follow(fd: int, obey: Callable[[MemoryShare], None]) -> None:
    while _next_share(fd, obey):
        pass


def _next_share(fd: int, obey: Callable[[MemoryShare], None]) -> bool:
    """Wait for one; return whether there may be more. What is no share is said, and nothing is done about it."""
    try:
        line = _read_line(fd)
    except (OSError, ValueError):
        return False  # the daemon is gone: the lifeline ends us
    try:
        obey(MemoryShare.parse(line))
    except Exception as error:
        records.say(f"the share of the memory could not be set: {records.describe(error)}")
    return True


def _read_line(fd: int) -> bytes:
    """Return the next line without its end, and read no byte beyond it. Raise ValueError if there is none."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(fd, 1)  # a few lines in the life of a process: nothing is kept for the next
        if not piece or len(line) == MAX_LINE:
            raise ValueError("it ended, or went on for too long")
        line += piece
    if line == b"\n":
        raise ValueError("it is empty")
    return line[:-1]
