"""A worker's memory: of its process, of its family, and what only the engine can know."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from typing import Any
from unittest.mock import patch

import psutil
import pytest

from draftd.workers import families, memory

MEGABYTE = 2**20


def test_the_memory_of_a_family_is_that_of_all_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"x = b'x' * {50 * MEGABYTE}; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        monkeypatch.setattr(families, "_families", families.Families())  # what was seen before is of no use
        alone, family = (memory.footprint(os.getpid(), family=asked) for asked in (False, True))
        assert alone
        assert family
        assert family > alone + 50 * MEGABYTE
        child.communicate()
    assert memory.footprint(child.pid, family=False) is None


def test_memory_that_cannot_be_looked_at_is_unknown() -> None:
    for error in (OSError(24, "Too many open files"), psutil.AccessDenied()):
        with patch.object(psutil, "Process", side_effect=error):
            assert memory.footprint(1, family=False) is None
            assert memory.used(1, 5000, family=False) is None


def test_what_the_engine_has_told_counts_if_it_is_more() -> None:
    with patch.object(memory, "footprint", return_value=1000):
        assert memory.used(1, 0, family=False) == 1000
        assert memory.used(1, 5000, family=False) == 5000


class LibProc:
    """Stands in for macOS's library: it knows the footprint of a process, unless it is not allowed to."""

    def __init__(self, *, allowed: bool = True) -> None:
        self.allowed = allowed

    def proc_pid_rusage(self, pid: int, flavor: int, buffer: Any) -> int:
        if not self.allowed:
            return -1
        assert flavor == 0
        # struct rusage_info_v0: a uuid of 16 bytes, then numbers of 8, of which the footprint is the eighth.
        ctypes.memmove(
            ctypes.addressof(buffer._obj) + 16 + 7 * 8, ctypes.byref(ctypes.c_uint64(7000 + pid)), 8
        )
        return 0


@pytest.mark.fault(100)
def test_on_a_mac_what_the_gpu_has_counts_for_every_process_of_a_family(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(families, "_families", families.Families())
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        with patch.object(memory, "_system", return_value=LibProc()):
            assert memory.footprint(child.pid, family=False) == 7000 + child.pid
            family = [os.getpid(), *(one.pid for one in psutil.Process().children(recursive=True))]
            assert child.pid in family
            assert memory.footprint(os.getpid(), family=True) == sum(7000 + pid for pid in family)
        with patch.object(memory, "_system", return_value=LibProc(allowed=False)):
            seen = memory.footprint(child.pid, family=False)
            assert seen
            assert seen < 100 * MEGABYTE
        assert child.stdin is not None
        child.stdin.close()
