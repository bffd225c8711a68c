"""Which processes belong to a child: looked for seldom, as a look goes through all processes of the machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from unittest.mock import patch

import psutil
import pytest

from draftd.workers import families
from draftd.workers.families import Families


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sh", "-c", "sh -c 'cat; exit'; exit"], stdin=subprocess.PIPE) as started:
        while len(psutil.Process(started.pid).children(recursive=True)) < 2:
            pass
        yield started
        assert started.stdin is not None
        started.stdin.close()


def numbers(known: Families, pid: int, *, fresh: bool = False) -> set[int]:
    return {one.pid for one in known.members(pid, fresh=fresh)}


def test_a_family_is_a_process_its_children_and_theirs(child: subprocess.Popen[bytes]) -> None:
    family = {child.pid, *(one.pid for one in psutil.Process(child.pid).children(recursive=True))}
    assert len(family) == 3
    assert numbers(Families(), child.pid) == family
    assert family < numbers(Families(), os.getpid())


def test_one_look_serves_all_until_it_is_too_old_or_a_fresh_one_is_wanted(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "MIN_AGE", 3600.0)
    monkeypatch.setattr(families, "MAX_AGE", 3600.0)
    known = Families()
    before = numbers(known, os.getpid())
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as late:
        assert numbers(known, os.getpid()) == before
        assert numbers(known, os.getpid(), fresh=True) == before | {late.pid}
        assert late.stdin is not None
        late.stdin.close()
    assert late.pid not in numbers(known, os.getpid()), "it is gone"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as later:
        assert later.pid not in numbers(known, os.getpid())
        with patch("time.monotonic", return_value=known._good_until + 1.0):
            assert later.pid in numbers(known, os.getpid())
        assert later.stdin is not None
        later.stdin.close()


def test_a_process_that_is_gone_has_no_family(child: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    with pytest.raises(psutil.NoSuchProcess):
        Families().members(gone.pid, fresh=False)
