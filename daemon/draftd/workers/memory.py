"""How much memory a worker uses.

On a Mac the resident size of a process lacks what its GPU work has allocated. The footprint, by which macOS itself
judges a process, includes it, so each child's footprint is asked for, whatever program it is.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import psutil

from draftd.workers.families import members

RUSAGE_INFO_V0 = 0


class RusageInfo(ctypes.Structure):
    """`struct rusage_info_v0` of macOS's sys/resource.h."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        *((name, ctypes.c_uint64) for name in ("user_time", "system_time", "idle_wakeups", "interrupts")),
        *((name, ctypes.c_uint64) for name in ("pageins", "wired_size", "resident_size", "phys_footprint")),
        *((name, ctypes.c_uint64) for name in ("start_time", "exit_time")),
    )


@functools.cache
def _system() -> Any:
    """The library of proc_pid_rusage; None where there is none."""
    if sys.platform != "darwin":
        return None
    try:
        return ctypes.CDLL("/usr/lib/libproc.dylib")
    except OSError:
        return None


def used_by(process: psutil.Process) -> int:
    """Bytes of one process: its footprint, or what is resident where no footprint is known.

    Raises psutil.Error and OSError.
    """
    if (system := _system()) is not None:
        info = RusageInfo()
        if system.proc_pid_rusage(process.pid, RUSAGE_INFO_V0, ctypes.byref(info)) == 0:
            return int(info.phys_footprint)
    return process.memory_info().rss


def footprint(pid: int, *, family: bool) -> int | None:
    """Bytes that the process uses, and with `family` its descendants.

    None if it is gone, or if there is no file descriptor left to look with.
    """
    try:
        return sum(used_by(member) for member in members(pid, family=family))
    except (psutil.Error, OSError):
        return None


def used(pid: int, told: int, *, family: bool) -> int | None:
    """Bytes that a child uses: what the system sees, or what its engine has told if that is more."""
    seen = footprint(pid, family=family)
    return None if seen is None else max(seen, told)
