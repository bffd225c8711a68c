"""What SIGTERM does before it ends an engine, with a stand-in for mlx."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from draftd.engine import release

LIMIT = 10.0
STAND_IN = """
import sys, threading, types
from draftd.engine import release
def said(name):
    return lambda *given: print(name, *given, flush=True)
class Broken(Exception): pass
mx = types.ModuleType("mlx.core")
def synchronize(*stream):
    said("synchronize")(*stream)
    threading.Event().wait(0.1)  # time for ten tokens
mx.synchronize, mx.set_wired_limit, mx.clear_cache = synchronize, said("wired"), said("clear")
sys.modules["mlx.core"] = mx
generate = types.ModuleType("mlx_lm.generate")
generate.generation_stream = "own"
sys.modules["mlx_lm.generate"] = generate
{change}
def generation():
    while True:
        release.park()
        said("token")()
        threading.Event().wait(0.01)
release.before_sigterm()
threading.Thread(target=generation, daemon=True).start()
while True:
    threading.Event().wait(0.05)  # as a server does; a wait without end misses a signal that comes while it begins
"""


def ended(change: str) -> tuple[list[str], float, int]:
    """What an engine says from SIGTERM on, the seconds that it takes, and its exit code."""
    code = STAND_IN.format(change=change)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "token\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            lines = process.communicate(timeout=LIMIT)[0].splitlines()
        finally:
            process.kill()
        return lines, time.monotonic() - began, process.returncode


def test_the_gpu_finishes_and_everything_is_given_back_before_the_end() -> None:
    lines, _, code = ended("")
    given_back = [line for line in lines if line != "token"]
    assert given_back == ["synchronize", "synchronize own", "wired 0", "clear"]
    assert "token" not in lines[lines.index("synchronize own") :], "a parked generation goes on"
    assert code == -signal.SIGTERM


@pytest.mark.parametrize("fails", ["synchronize", "set_wired_limit"])
def test_what_fails_keeps_nothing_else_from_being_given_back(fails: str) -> None:
    lines, _, code = ended(f"def broken(*_): raise Broken\nmx.{fails} = broken")
    assert lines[-1] == "clear"
    assert code == -signal.SIGTERM


def test_what_is_to_be_saved_is_saved_first_and_once_while_tokens_go_on() -> None:
    saving = "release.save_first(said('saved'))\nrelease.save_first(lambda: 1 / 0)"
    lines, _, code = ended(saving)
    assert [line for line in lines if line != "token"][:2] == ["saved", "synchronize"]
    lines, _, code = ended(f"{saving}\nrelease.save_nothing()")
    assert "saved" not in lines
    assert code == -signal.SIGTERM


def test_a_gpu_that_hangs_does_not_keep_the_process() -> None:
    _, seconds, code = ended("mx.synchronize = lambda *_: threading.Event().wait()")
    assert release.LIMIT_S <= seconds < release.LIMIT_S + 1
    assert code == -signal.SIGTERM


def test_before_anything_was_computed_there_is_nothing_to_give_back() -> None:
    lines, _, code = ended('del sys.modules["mlx.core"]')
    assert set(lines) <= {"token"}
    assert code == -signal.SIGTERM


def test_every_other_way_out_gives_back_too() -> None:
    code = STAND_IN.format(change="from draftd.engine.exits import leave\nleave(70, 'died')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (70, "clear")
