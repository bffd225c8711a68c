"""Tests that measure time run alone, although pytest-xdist runs two tests at a time.

A test that is marked `alone`, or that states what it `measured`, waits until no other test runs, and others wait
for it. That takes two locks, each a file: every test holds `room`, this kind of test by itself and the others
together. Whoever wants it takes `door` first and lets go of it when it has the room, so that a test which waits to
be alone is not overtaken by ever new ones.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Wait for the test's turn, if there are other processes."""
    if "PYTEST_XDIST_WORKER" not in os.environ or item.config.cache is None:
        return (yield)
    folder = item.config.cache.mkdir("turns")
    kind = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with turn(folder, kind):
        return (yield)


@contextmanager
def turn(folder: Path, kind: int) -> Iterator[None]:
    """Hold the room, alone (LOCK_EX) or with others (LOCK_SH)."""
    with (folder / "room").open("w") as room:
        with (folder / "door").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, kind)
        yield
