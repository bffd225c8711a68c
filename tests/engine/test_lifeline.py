"""The lifeline, with a scripted child that has a grandchild which ignores SIGTERM."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from draftd.engine import lifeline
from draftd.engine.exits import EngineError
from draftd.protocol import EXIT_ORPHANED, EXIT_REFUSED, LIFELINE_VARIABLE

GONE_S = 2.0  # what the daemon promises for its own end by SIGKILL

GRANDCHILD = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('up', flush=True)
signal.pause()
"""
CHILD = f"""
import os, subprocess, sys, threading
from draftd.engine import lifeline
lifeline.hold(os.environ)
grandchild = subprocess.Popen([sys.executable, "-c", {GRANDCHILD!r}], close_fds=False)
threading.Event().wait()
"""
CURIOUS = f"""
import os, threading
from draftd.engine import lifeline
fd = int(os.environ["{LIFELINE_VARIABLE}"])
lifeline.hold(os.environ)
print("up", flush=True)
print(f"variable: {{'{LIFELINE_VARIABLE}' in os.environ}}, inheritable: {{os.get_inheritable(fd)}}", flush=True)
threading.Event().wait()
"""
PATIENT = """
import os, signal, threading
from draftd.engine import lifeline
lifeline.hold(os.environ)
signal.signal(signal.SIGTERM, lambda *_: None)
print("up", flush=True)
threading.Event().wait()
"""
PARENT = f"""
import subprocess, sys
sys.exit(subprocess.call([sys.executable, "-c", {CHILD!r}], close_fds=False))
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


@contextmanager
def started(code: str, reader: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a group leader with the lifeline, which says "up" when it is; leave nothing of it behind."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, LIFELINE_VARIABLE: str(reader)},
        pass_fds=(reader,),
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def end_of_file_within(child: subprocess.Popen[bytes], seconds: float) -> bool:
    """Say whether everybody who holds the child's stdout has ended: the child and the grandchild."""
    assert child.stdout is not None
    rest = threading.Thread(target=child.stdout.read, daemon=True)
    rest.start()
    rest.join(seconds)
    return not rest.is_alive()


def test_the_whole_group_ends_with_the_daemon(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with started(CHILD, reader) as child:
        closed = time.monotonic()
        os.close(writer)
        gone = end_of_file_within(child, GONE_S)
        print(f"child and grandchild gone after {time.monotonic() - closed:.2f} s")
        assert gone, "the grandchild lives on"
        assert child.wait(GONE_S) == -signal.SIGTERM


def test_a_child_that_handles_sigterm_ends_too(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with started(PATIENT, reader) as child:
        os.close(writer)
        assert child.wait(GONE_S) == EXIT_ORPHANED


@pytest.mark.fault(202)
def test_the_number_of_the_group_is_kept_until_the_helper_has_used_it(pipe: tuple[int, int]) -> None:
    """A number that is a session's is given to nobody else."""
    reader, writer = pipe
    with started(PATIENT, reader) as child:
        os.close(writer)
        helper = None
        while helper is None:
            assert child.poll() is None, "it ended before its helper was seen"
            helper = next((each.pid for each in psutil.process_iter() if _is_helper(each, child.pid)), None)
        assert os.getsid(helper) == child.pid
        assert os.getpgid(helper) != child.pid


def _is_helper(process: psutil.Process, group: int) -> bool:
    with suppress(psutil.Error):
        return f"kill -9 -{group}" in " ".join(process.cmdline())
    return False


def test_a_child_that_leads_no_group_ends_alone(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with started(PARENT, reader) as parent:
        os.close(writer)
        assert parent.wait(GONE_S) == EXIT_ORPHANED


def test_neither_the_descriptor_nor_its_number_is_inherited(pipe: tuple[int, int]) -> None:
    reader, _ = pipe
    with started(CURIOUS, reader) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"variable: False, inheritable: False\n"


def test_words_on_the_lifeline_mean_nothing(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with started(CURIOUS, reader) as child:
        os.write(writer, b"hello")
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)


@pytest.mark.parametrize("environ", [{}, {LIFELINE_VARIABLE: ""}])
def test_without_a_descriptor_there_is_no_lifeline(environ: dict[str, str]) -> None:
    assert lifeline.hold(environ) is None


@pytest.mark.parametrize("number", ["none", "-1", "99999", "9" * 30])
def test_a_descriptor_that_is_not_open_is_refused(number: str) -> None:
    with pytest.raises(
        EngineError, match=f"{LIFELINE_VARIABLE}={number} is not an open descriptor"
    ) as caught:
        lifeline.hold({LIFELINE_VARIABLE: number})
    assert caught.value.code == EXIT_REFUSED


@pytest.mark.parametrize("how", ["PIPE", "INT", "TERM", "KILL"])
def test_a_guardian_ends_as_its_command_did(how: str) -> None:
    """Python ignores SIGPIPE, and turns SIGINT into an exception."""
    guardian = [sys.executable, "-m", "draftd.engine.guardian", "sh", "-c", f"kill -{how} $$"]
    ended = subprocess.run(guardian, check=False, capture_output=True)
    assert (ended.returncode, ended.stderr) == (-signal.Signals[f"SIG{how}"], b"")
