"""The one way to end the engine, with an exit code that says why.

The codes stand in `draftd.protocol`, with what each means; 0 is an orderly stop, by SIGINT. An end by signal
shows as one: -15 after SIGTERM, which is also how a worker that leads its process group ends when the daemon is
gone.
"""

import contextlib
import os
import signal
import sys
from typing import NoReturn

from draftd.engine import records, release


class EngineError(Exception):
    """A reason to end the process that has a name: an exit code, and one line for people."""

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
    release.give_back()
    os._exit(code)


def end_alike(code: int) -> int:
    """End this process by the signal that ended another, if one did; else return that one's exit code.

    `code` is negative for a signal. Python ignores some of them (SIGPIPE, for one), and others it handles.
    """
    if code < 0:
        if -code not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code
