"""What is left of a daemon that could not stop in order, because it crashed, was killed, or the machine went down.

The note that says where it answers stays then, and a crash adds the stacks of all threads in a file beside it
(functions and lines, no values). The next daemon on the folder tells both in its log.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from draftd.files import open_file, read_text

CRASH = "daemon.crash"
MAX_SHOWN = 8000  # characters of the stacks
WORDS = "it crashed, it was killed, or the machine went down"


@contextmanager
def stacks_kept(state_dir: Path) -> Iterator[None]:
    """Should this process crash (SIGSEGV, SIGABRT and the like) while the block runs, its stacks are in the folder.

    Where faulthandler is on already (PYTHONFAULTHANDLER=1), it stays as it is.
    """
    if faulthandler.is_enabled():
        with suppress(OSError):
            (state_dir / CRASH).unlink()  # else the next end would be told with the stacks of an earlier one
        yield
        return
    path = state_dir / CRASH
    try:
        fd = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, links=False)
    except OSError:  # nothing that was asked for depends on it
        yield
        return
    with os.fdopen(fd, "w") as file:
        faulthandler.enable(file)
        try:
            yield
        finally:
            faulthandler.disable()
            with suppress(OSError):
                path.unlink()


def stacks(state_dir: Path) -> str:
    """What an earlier process has left there; "" if it did not crash."""
    with suppress(OSError, ValueError):
        return read_text(state_dir / CRASH, links=False)[:MAX_SHOWN].strip()
    return ""
