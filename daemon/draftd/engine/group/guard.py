"""`python -m draftd.engine.group.guard`: stands between ssh and a rank on another machine, and ends it in any case.

A rank ends itself when its stdin does, but not while it hangs or is stopped, and where the connection is gone
nobody else could end it. So what comes from ssh goes through here: at its end, after a silence, or by SIGTERM, the
rank gets END_S seconds to end by itself, and then SIGKILL. Should the guard be killed, the rank reads end of file.
"""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from draftd.engine.group import wire
from draftd.engine.release import LIMIT_S

RANK = ("-u", "-P", "-m", "draftd.engine.group.rank")
END_S = LIMIT_S + 1.0

Rank = subprocess.Popen[bytes]


def main() -> int:
    """Run a rank, and return its exit code; 128 and the number of a signal that ended it, as shells do."""
    rank = subprocess.Popen([sys.executable, *RANK], stdin=subprocess.PIPE)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: _start(_end, rank))
    _start(_pass_on, rank)
    code = rank.wait()
    return code if code >= 0 else 128 - code


def _pass_on(rank: Rank) -> None:
    assert rank.stdin is not None
    with suppress(OSError):
        while select.select([0], [], [], wire.SILENCE_S)[0] and (piece := os.read(0, 65536)):
            os.write(rank.stdin.fileno(), piece)
    _end(rank)


def _end(rank: Rank) -> None:
    rank.terminate()
    assert rank.stdin is not None
    with suppress(OSError):
        rank.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        rank.wait(END_S)
        return
    rank.kill()


def _start(work: Callable[[Rank], None], rank: Rank) -> None:
    threading.Thread(target=work, args=(rank,), daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
