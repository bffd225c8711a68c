"""What the engine tells, as lines on stderr: for people, and for the daemon that reads the worker's log.

Three forms, one line each:

    Draft tokens accepted: 4/5 (80%)            what people were promised, one per drafted request
    draftd-engine {"event": "generation", ...}  the same and more, for the daemon to parse
    draftd-engine: port 8000 on 127.0.0.1 ...   something that a person should know, at most once each

Where several profiles share the engine, the daemon says whose a request is (see `request_context`): then the
first form begins with the name in brackets, and the record of the generation has a "profile".

The lines of one call leave in one `write`, past the buffers of `sys.stderr`, so that no other thread's line
comes between them. For none to begin in the middle of another thread's line either, `sys.stderr` must give
out whole lines only, see `keep_lines_whole`. The call blocks while the pipe is full: whoever reads the log
must always drain it. A record holds numbers and names, never a word of a prompt or of an answer. Nothing here
raises: telling must not disturb generating.
"""

import contextlib
import io
import json
import os
import sys
from typing import Any

from draftd.protocol import RECORD_PREFIX

_STDERR = 2


def record(event: str, **fields: Any) -> str:
    """Return one record as a line without its end."""
    return RECORD_PREFIX + json.dumps({"event": event, **fields})


def say(text: str) -> None:
    """Write one line for people."""
    write(f"draftd-engine: {' '.join(text.splitlines())}")


def write(*lines: str, fd: int = _STDERR) -> None:
    """Write whole lines, together. A log that nobody holds open any more loses them."""
    data = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]


def keep_lines_whole() -> None:
    """Let `sys.stderr` hold text back until its line is complete.

    With PYTHONUNBUFFERED a `print` is two writes, the text and the end of the line, and another thread gets
    in between: socketserver prints its dashes so when a client has left, which is when a generation is
    reported. With the text held back, a `print` is one call that nothing interrupts.
    """
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(line_buffering=True, write_through=False)
