"""Memory of a worker: of its process, of its family, and what only the engine can know."""

from __future__ import annotations

import os
import subprocess
import sys
from unittest.mock import patch

import psutil

from draftd.workers import memory

MEGABYTE = 2**20


def test_the_memory_of_a_family_is_that_of_all_its_members() -> None:
    code = f"x = b'x' * {50 * MEGABYTE}; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alone, family = (memory.resident(os.getpid(), family=asked) for asked in (False, True))
        assert alone
        assert family
        assert family > alone + 50 * MEGABYTE
        child.communicate()
    assert memory.resident(child.pid, family=False) is None


def test_memory_that_cannot_be_looked_at_is_unknown() -> None:
    for error in (OSError(24, "Too many open files"), psutil.AccessDenied()):
        with patch.object(psutil, "Process", side_effect=error):
            assert memory.resident(1, family=False) is None
            assert memory.used(1, 5000, family=False) is None


def test_what_the_engine_has_told_counts_if_it_is_more() -> None:
    with patch.object(memory, "resident", return_value=1000):
        assert memory.used(1, 0, family=False) == 1000
        assert memory.used(1, 5000, family=False) == 5000
