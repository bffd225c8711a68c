"""Runs a command that knows nothing of the lifeline in place of mlx_lm.server, and ends it when the daemon is gone.

`python -m draftd.engine.guardian COMMAND...` starts the command in its own process group, waits for it, and ends
as the command ended. SIGTERM reaches the command directly, since the daemon signals the group; the guardian must
outlive it, or the daemon would take the worker for gone while it is still shutting down.
"""

import os
import signal
import subprocess
import sys

from draftd.engine import lifeline
from draftd.engine.exits import end_alike
from draftd.protocol import EXIT_REFUSED


def main(argv: list[str]) -> int:
    """Run the command and return its exit code; a signal that ended it ends the guardian too."""
    lifeline.hold(os.environ)
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        command = subprocess.Popen(argv)
    except OSError as error:
        print(f"the command cannot be started: {error}", file=sys.stderr, flush=True)
        return EXIT_REFUSED
    return end_alike(command.wait())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
