"""The guard on another machine: it ends a rank that cannot end itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

RANK = "import sys; print('up', flush=True); sys.stdin.read()"
HANGS = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
GUARD = """
import sys
from draftd.engine.group import guard, wire
guard.RANK = ("-c", sys.argv[2])
guard.END_S = 0.2
wire.SILENCE_S = float(sys.argv[1])
sys.exit(guard.main())
"""
LIMIT = 15.0


@pytest.fixture
def guard(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    silence, rank = getattr(request, "param", (60, RANK))
    words = [sys.executable, "-c", GUARD, str(silence), rank]
    made = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield made
    made.kill()
    made.communicate()


def rank_of(guard: subprocess.Popen[bytes]) -> psutil.Process:
    assert guard.stdout is not None
    assert guard.stdout.readline() == b"up\n"
    [rank] = psutil.Process(guard.pid).children()
    return rank


@pytest.mark.fault(142)
@pytest.mark.parametrize("guard", [(60, HANGS)], indirect=True, ids=["hangs"])
@pytest.mark.parametrize("way", ["end of file", "SIGTERM"])
def test_a_rank_that_hangs_is_killed_when_ssh_ends(guard: subprocess.Popen[bytes], way: str) -> None:
    rank = rank_of(guard)
    assert guard.stdin is not None
    if way == "SIGTERM":
        guard.terminate()
    else:
        guard.stdin.close()
        guard.stdin = None
    assert guard.wait(LIMIT) == 128 + signal.SIGKILL
    assert not rank.is_running()


@pytest.mark.fault(142)
@pytest.mark.parametrize("guard", [(0.2, RANK)], indirect=True, ids=["silent"])
def test_a_rank_ends_when_the_connection_is_silent(guard: subprocess.Popen[bytes]) -> None:
    rank = rank_of(guard)
    assert guard.wait(LIMIT) in {0, 128 + signal.SIGTERM}
    assert not rank.is_running()


def test_a_rank_ends_when_its_guard_is_killed(guard: subprocess.Popen[bytes]) -> None:
    rank = rank_of(guard)
    os.kill(guard.pid, signal.SIGKILL)
    _, left = psutil.wait_procs([rank], timeout=LIMIT)
    assert not left


def test_what_comes_by_ssh_goes_to_the_rank_and_its_exit_code_back(guard: subprocess.Popen[bytes]) -> None:
    rank_of(guard)
    guard.communicate(b"something", LIMIT)
    assert guard.returncode in {0, 128 + signal.SIGTERM}
