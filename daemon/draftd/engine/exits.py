"""Why the engine ended, as exit codes, and the one way to end it.

| code | name | reason |
|---|---|---|
| 0 | | stopped in order, by SIGINT |
| 1 | EXIT_FAILED | an error that nobody foresaw; its traceback is on stderr |
| 2 | EXIT_REFUSED | flags that cannot work: refused by us, or by mlx_lm.server's own parser |
| 70 | EXIT_GENERATION_DIED | the thread that loads the model and generates has died |
| 71 | EXIT_ORPHANED | the daemon is gone, and SIGTERM to our process group did not end us, or we lead none |
| 98 | EXIT_PORT_TAKEN | somebody else listens on the port |

An end by signal shows as one: -15 after SIGTERM, which is also how a worker that leads its process group ends
when the daemon is gone. 70 and 71 are EX_SOFTWARE and EX_OSERR of sysexits.h; 98 is EADDRINUSE on Linux, and
stands for it on every platform.
"""

import contextlib
import os
import sys
from typing import NoReturn

from draftd.engine import records

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_GENERATION_DIED = 70
EXIT_ORPHANED = 71
EXIT_PORT_TAKEN = 98


class EngineError(Exception):
    """A reason to end the process that we can name: an exit code, and one line for people."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def leave(code: int, reason: str) -> NoReturn:
    """Say why in one line, and end at once.

    `os._exit`, because `sys.exit` would wait for mlx_lm's generation thread, which is no daemon thread and
    may be in the middle of loading a model, or waiting for requests that will never come.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    records.say(reason)
    os._exit(code)


def describe(error: BaseException) -> str:
    """Return an exception as one line: its type, and the first line of what it says."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
