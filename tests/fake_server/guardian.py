"""What `draftd.engine.guardian` does, by a fork: for the daemon in a test's own process.

The real one is another Python, and takes twice as long to start as the scripted server. Every daemon that has a
process of its own has the real one.
"""

import os
import signal
import threading


def guard() -> None:
    """Return in a child. This process waits for it, ends as it ends, and ends both with the daemon."""
    lifeline = int(os.environ.pop("DRAFTD_LIFELINE_FD"))
    child = os.fork()
    if child == 0:
        os.close(lifeline)
        return
    signal.signal(signal.SIGTERM, lambda *_: None)
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _watch(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)
