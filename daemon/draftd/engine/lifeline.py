"""Ends the worker when the daemon is gone, even if the daemon was killed and could tell nobody.

The daemon keeps the write end of a pipe and never writes to it. The worker inherits the read end, whose number is
in DRAFTD_LIFELINE_FD. However the daemon ends, the kernel closes the write end, and a read that has been blocking
since the start returns: end of file. That needs no polling, and no process id that somebody else might own by
now. Only the daemon may hold the write end, so it must not be inheritable.

Then, in this order:

1. A helper outside our process group is started, which sends SIGKILL to the group after KILL_AFTER_S.
   It has to be another process: this one does not survive step 2. It stays in our session, so that the system
   gives the group's number to nobody else before the helper has ended.
2. SIGTERM to the group, which asks everything that we started to end, and ends this process when it has given its
   memory back: see `release`.
3. A process that goes on after SIGTERM, as the guardian does, exits by EXIT_ORPHANED after GRACE_S.

A worker that does not lead its process group shares it with strangers, such as the shell of somebody who tries the
engine by hand, so it ends only itself.

The watching thread needs the interpreter's lock for a moment after the read. mlx releases the lock while it
evaluates, so a busy generation delays this by milliseconds, not until it ends.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import MutableMapping
from typing import NoReturn

from draftd.engine import release
from draftd.engine.exits import EngineError
from draftd.protocol import EXIT_ORPHANED, EXIT_REFUSED, LIFELINE_VARIABLE

GRACE_S = release.LIMIT_S + 0.2
KILL_AFTER_S = GRACE_S + 0.2


def hold(environ: MutableMapping[str, str]) -> threading.Thread | None:
    """Watch the pipe that the environment names. Without one there is no lifeline, and None is returned.

    The variable is removed and the descriptor made non-inheritable, so that no process that we start takes either
    for its own. Raises EngineError if the descriptor is not open: a worker that was meant to have a lifeline must
    not run without one.
    """
    number = environ.pop(LIFELINE_VARIABLE, None)
    if not number:
        return None
    try:
        fd = int(number)
        os.set_inheritable(fd, False)
    except (ValueError, OverflowError, OSError) as error:
        raise EngineError(
            EXIT_REFUSED, f"{LIFELINE_VARIABLE}={number} is not an open descriptor: {error}"
        ) from error
    thread = threading.Thread(target=_watch, args=(fd,), name="lifeline", daemon=True)
    thread.start()
    return thread


def _watch(fd: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(fd, 512):
            pass  # nobody should write; what counts is the end of file
    _end()


def _end() -> NoReturn:
    release.save_nothing()
    if os.getpgrp() == os.getpid():
        with contextlib.suppress(OSError):
            _kill_group_later(os.getpgrp())
        os.killpg(os.getpgrp(), signal.SIGTERM)
        time.sleep(GRACE_S)
    else:
        release.give_back()
    os._exit(EXIT_ORPHANED)


def _kill_group_later(group: int) -> None:
    subprocess.Popen(
        ["/bin/sh", "-c", f"sleep {KILL_AFTER_S}; kill -9 -{group}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
