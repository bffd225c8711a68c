"""`python -m draftd.engine.spare`: an engine that has imported everything it needs, and waits for its flags.

Its stdin is one end of a socket, and the daemon holds the other:

1. The spare writes SPARE_WARM when mlx_lm is imported and the hooks are placed.
2. The daemon writes the flags, as a JSON list in one line.
3. The spare writes SPARE_TAKEN, and goes on as `python -m draftd.engine <flags>` does: same output, same exit
   codes.

End of file instead of the flags means that the spare is not needed any more.
"""

import json
import os
import sys

from draftd.engine.__main__ import main
from draftd.protocol import SPARE_TAKEN, SPARE_WARM

_STDIN = 0


def until_taken(connection: int) -> None:
    """Say that the spare is warm, wait for the flags, and put them into `sys.argv`."""
    os.write(connection, SPARE_WARM)
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(connection, 65536)
        if not piece:
            sys.exit()
        line += piece
    sys.argv[1:] = json.loads(line)
    os.write(connection, SPARE_TAKEN)
    os.close(connection)


def take_stdin() -> int:
    """Return stdin as a descriptor that no child process inherits, and leave an empty stdin in its place."""
    connection = os.dup(_STDIN)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, _STDIN)
    os.close(empty)
    return connection


if __name__ == "__main__":
    connection = take_stdin()
    main(lambda: until_taken(connection))
