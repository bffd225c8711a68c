"""The engine's end of the channel to the daemon: the secret of this start comes over it, and records go back.

The channel is a socket whose number is in DRAFTD_CHANNEL_FD. A secret in the arguments or in the environment could
be read by others; a pipe could be opened through /proc by any process of the same user, and a socket cannot. The
lifeline stays what it is, a pipe that nobody writes to, since commands of others hang on it as well.

An engine that was started by hand has no channel. Then it has no secret either, and answers everybody.
"""

import os
from collections.abc import MutableMapping

from draftd.engine import records
from draftd.engine.exits import EngineError
from draftd.protocol import CHANNEL_VARIABLE, EXIT_REFUSED

MAX_SECRET = 256  # bytes, its end of line included

_secret = ""


def hold(environ: MutableMapping[str, str]) -> None:
    """Take the channel that the environment names, if it names one, and read the secret.

    The variable is removed and the descriptor made non-inheritable, so that no process that we start can speak for
    us. Raises EngineError if there is no secret: a worker that was meant to have one must not run without it.
    """
    global _secret  # noqa: PLW0603 - a process has one channel
    number = environ.pop(CHANNEL_VARIABLE, None)
    if not number:
        return
    try:
        fd = int(number)
        os.set_inheritable(fd, False)
        _secret = _read_line(fd)
    except (ValueError, OverflowError, OSError) as error:
        raise EngineError(EXIT_REFUSED, f"{CHANNEL_VARIABLE}={number} gives no secret: {error}") from error
    records.report_to(fd)


def secret() -> str:
    """Return what a request must know to be answered; empty if everybody is answered."""
    return _secret


def _read_line(fd: int) -> str:
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(fd, MAX_SECRET - len(line))
        if not piece:
            raise ValueError("it ended, or went on for too long")
        line += piece
    if line == b"\n":
        raise ValueError("it is empty")
    return line[:-1].decode("ascii")
