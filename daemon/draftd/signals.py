"""What the daemon does on a signal."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from draftd.daemon import Daemon

ENDING = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGXCPU,
)


def handle_signals(daemon: Daemon) -> None:
    """SIGTERM and SIGINT stop the daemon, SIGHUP reloads it. For the main thread.

    So do others that somebody may send, or a limit on processor time: each would end it without a word.
    The system also sends SIGHUP when the terminal is closed, and that should end what runs in it, unless it was
    started with `nohup`, under which it ignores the signal.
    """
    loop = asyncio.get_running_loop()
    in_terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and _has_terminal()

    def hung_up() -> None:
        if in_terminal and not _has_terminal():
            daemon.stop("the terminal was closed")
        else:
            daemon.try_reload()

    for number in ENDING:
        loop.add_signal_handler(number, daemon.stop, number.name)
    loop.add_signal_handler(signal.SIGHUP, hung_up)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
