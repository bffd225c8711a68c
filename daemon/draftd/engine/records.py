"""What the engine says, as lines on stderr: for people, who find them in the worker's log.

There are three forms, each on one line:

    Draft tokens accepted: 4/5 (80%)            what people were promised, one for each drafted request
    draftd-engine {"event": "generation", ...}  the same and more: a record
    draftd-engine: port 8000 on 127.0.0.1 ...   something that a person should know, at most once each

The daemon does not read them: anybody could have such a line written there. It gets the records over the channel
(see `channel`), where nobody but the engine can write, and before they stand in the log.

Where several profiles share the engine, the daemon says whose a request is (see `request_context`): then the
first form begins with the profile's name in brackets, and the record of the generation has a "profile".

The lines of one call leave in one `write`, past the buffers of `sys.stderr`, so that no line of another thread
comes between them. For none to begin in the middle of another thread's line either, `sys.stderr` must hand on
whole lines only, see `keep_lines_whole`. The call blocks while the pipe is full: whoever reads the log must never
stop draining it. A record holds numbers and names, and never a word of a prompt or of an answer. Nothing that
writes here raises: reporting must not disturb generating.
"""

import contextlib
import importlib
import io
import json
import os
import sys
import threading
from dataclasses import asdict
from typing import Any

from draftd.engine.generation.acceptance import AcceptanceCount
from draftd.protocol import GENERATION, PROGRESS, RECORD_PREFIX, Costs, acceptance_line

_STDERR = 2
_channel: int | None = None
_reporting = (
    threading.Lock()
)  # a record that the kernel takes in two pieces must not be torn by another thread


def report_to(channel: int) -> None:
    """Send records to this descriptor from now on."""
    global _channel  # noqa: PLW0603 - a process has one channel
    _channel = channel


def record(event: str, **fields: Any) -> str:
    """Return one record as a line without its end."""
    return RECORD_PREFIX + json.dumps({"event": event, **fields})


def report(made: str, *human: str) -> None:
    """Send a record, and write it with the lines for people that go with it."""
    send(made.removeprefix(RECORD_PREFIX))
    write(*human, made)


def send(line: str) -> None:
    """Send a line to whoever gets the records, if anybody does."""
    if _channel is not None:
        with _reporting:
            write(line, fd=_channel)


def say(text: str) -> None:
    """Write one line for people."""
    write(f"draftd-engine: {' '.join(text.splitlines())}")


def write(*lines: str, fd: int = _STDERR) -> None:
    """Write whole lines, together. They are lost if nobody reads them any more."""
    data = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]


def keep_lines_whole() -> None:
    """Let `sys.stderr` hold text back until its line is complete.

    With PYTHONUNBUFFERED a `print` is two writes, the text and the end of the line, and another thread can get in
    between: this is how socketserver prints its dashes when a client has left, and that is when a generation is
    reported. With the text held back, a `print` is one call that nothing interrupts.
    """
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(line_buffering=True, write_through=False)


def describe(error: BaseException) -> str:
    """Return an exception as one line: its type, and the first line of what it says."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def report_progress() -> None:
    """Report that a generation makes progress, and how much memory it takes."""
    try:
        report(record(PROGRESS, memory=_memory()))
    except Exception as error:
        say(f"progress could not be reported: {describe(error)}")


def report_generation(
    count: AcceptanceCount, costs: Costs | None, seconds: float, profile: str | None
) -> None:
    """Report a generation that has ended.

    `seconds` is what its rounds took, `costs` what drafting costs, as far as it is known; `profile` is whose
    request it was, if the daemon said so.
    """
    try:
        human = [acceptance_line(count.accepted, count.proposed, profile)] if count.proposed else []
        whose = {"profile": profile} if profile else {}
        report(generation_record(count, costs, seconds, memory=_memory(), **whose), *human)
    except Exception as error:
        say(f"a generation could not be reported: {describe(error)}")


def generation_record(count: AcceptanceCount, costs: Costs | None, seconds: float, **others: Any) -> str:
    """Return the record of one generation, with what else is to stand in it."""
    worth: dict[str, Any] = {} if costs is None else {"costs": asdict(costs)}
    if costs is not None and seconds > 0:  # a first round that was cut short has no time of its own
        worth["speedup"] = count.tokens * costs.single / seconds
    return record(
        GENERATION,
        rounds=count.rounds,
        proposed=count.proposed,
        accepted=count.accepted,
        drafters={name: asdict(tally) for name, tally in count.drafters.items()},
        truncated_rounds=count.truncated_rounds,
        draft_length=count.draft_length,
        rule=count.rule,
        accepted_by_position=count.accepted_by_position,
        proposed_by_position=count.proposed_by_position,
        tokens=count.tokens,
        passes=count.passes,
        rows=count.rows,
        **worth,
        **others,
    )


def _memory() -> dict[str, int]:
    """Bytes. mlx itself is asked: the memory that it uses on a GPU is not part of the process's resident size."""
    mx = importlib.import_module("mlx.core")
    return {
        "active": mx.get_active_memory(),
        "cache": mx.get_cache_memory(),
        "peak": mx.get_peak_memory(),
    }
