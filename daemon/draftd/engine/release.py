"""Gives the GPU's memory back before the process ends.

On macOS memory that is wired for the GPU can stay wired until the next boot if its owner ends in the middle of its
work. So SIGTERM is handled: a generation is parked at its next token or piece of a prompt (of those that mlx_lm
batches only the answers are), the GPU finishes what it was given, the wired limit becomes 0, the cache is emptied,
and then the signal ends the process as it always did. Every other way out that is left to us goes by `give_back`
too. A GPU that hangs must not keep us: all of it has LIMIT_S. Before all that what is to be saved may be, unless
the daemon is gone: then there is no time, as we are about to be killed.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

LIMIT_S = 1.0

_ending = threading.Event()
_hurried = threading.Event()
_saving: list[Callable[[], None]] = []


def before_sigterm() -> None:
    """From now on memory is given back before SIGTERM ends the process. For the main thread."""
    signal.signal(signal.SIGTERM, _on_sigterm)


def save_first(save: Callable[[], None]) -> None:
    """Have `save` called before SIGTERM ends the process, once."""
    _saving.append(save)


def save_nothing() -> None:
    """There is no time for that any more."""
    _hurried.set()


def is_hurried() -> bool:
    """Whether who saves is to stop."""
    return _hurried.is_set()


def park() -> None:
    """Never return if the process is about to end; else return at once. For threads that generate."""
    if _ending.is_set():
        threading.Event().wait()


def give_back() -> None:
    """Park what generates, and give the memory back, in LIMIT_S seconds at most. Raises nothing."""
    _ending.set()
    giving = threading.Thread(target=_give_back, name="release", daemon=True)
    giving.start()
    giving.join(LIMIT_S)


def _on_sigterm(number: int, _: FrameType | None) -> None:
    while _saving and not is_hurried():  # a second signal in the meantime finds nothing left to wait for
        with contextlib.suppress(Exception):
            _saving.pop()()
    if not _ending.is_set():
        give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _give_back() -> None:
    mx: Any = sys.modules.get("mlx.core")
    if mx is None:
        return  # nothing has been computed yet
    # mlx_lm generates on a stream of its own.
    streams = (None, getattr(sys.modules.get("mlx_lm.generate"), "generation_stream", None))
    for stream in dict.fromkeys(streams):
        with contextlib.suppress(Exception):
            mx.synchronize(*(() if stream is None else (stream,)))
    with contextlib.suppress(Exception):
        mx.set_wired_limit(0)
    with contextlib.suppress(Exception):
        mx.clear_cache()
