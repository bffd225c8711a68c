"""The command line in processes that are forked from one which has imported everything that takes long to import.

Python and its imports cost a command 0.3 s of CPU and `draftd up` 0.7 s, more than what most tests do with them. A
process of `start` or `run` has what one of its own would have: a pid, an environment, a folder, streams, signals,
an exit code. What a start itself is about (its name, the limits of a shell, a terminal, a moved clock) is tested
with `python -m draftd`, as a user starts it.

Theory of operation. The first call starts the server, `python -m tests.forked`, which ends with the process that
asked. A request is a line of JSON, with four descriptors: the streams, and a pipe for the pid and the status. The
server forks a keeper, which forks the command and waits for it: so the server itself waits for nobody.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TextIO

LIMIT = 20.0  # seconds
SIZE = 2**16  # bytes that are read at once
COSTLY = ("draftd.app", "rich.live", "rich.progress", "rich.table")
"""draftd.console is not among them: it looks at the environment."""


class Started:
    """A command that runs, with those methods of `subprocess.Popen` that tests need."""

    stderr: TextIO | None = None

    def __init__(
        self, words: tuple[str, ...], env: Mapping[str, str] | None, stdout: int, stderr: int
    ) -> None:
        asked = {"words": words, "env": dict(os.environ if env is None else env), "folder": os.getcwd()}
        told, tell = os.pipe()
        with open(os.devnull, "rb") as nothing:
            given = [nothing.fileno(), stdout, stderr, tell]
            socket.send_fds(_server(), [json.dumps(asked).encode() + b"\n"], given)
        os.close(tell)
        self._told = os.fdopen(told, "rb", buffering=0)
        self.args = words
        self.pid = int(self._told.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; the negative number of the signal if one ended it."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            with self._told:
                self.returncode = os.waitstatus_to_exitcode(int(self._told.readline()))
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None and not select.select([self._told], [], [], 0)[0]:
            with suppress(ProcessLookupError):  # it has just ended, and we have not been told yet
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(*words: str, env: Mapping[str, str] | None = None) -> Started:
    """`draftd` with these words; what it will say is read from its `stderr`."""
    read, write = os.pipe()
    with open(os.devnull, "wb") as nothing, open(write, "wb") as stderr:
        started = Started(words, env, nothing.fileno(), stderr.fileno())
    started.stderr = os.fdopen(read, encoding="utf-8")
    return started


def run(
    *words: str, env: Mapping[str, str] | None = None, limit: float = LIMIT
) -> subprocess.CompletedProcess[str]:
    """What `draftd` with these words says, and how it ends."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = Started(words, env, out.fileno(), err.fileno())
        try:
            code = started.wait(limit)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait(limit)
            raise
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(words, code, out.read(), err.read())


@cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=Path(__file__).parents[1],
        )
    atexit.register(process.wait)
    atexit.register(ours.close)  # the server ends with it
    return ours


def _serve(door: socket.socket) -> None:
    """Return in each command. The server itself ends with whoever asks."""
    gc.freeze()  # else the first collection in each command copies all that it shares with the server
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a keeper
    while True:
        line, given, _, _ = socket.recv_fds(door, SIZE, 4)
        while line and not line.endswith(b"\n"):
            line += door.recv(SIZE)
        if not line:
            os._exit(0)
        if os.fork() == 0:
            door.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            *streams, tell = given
            _keep(tell, streams)
            return _become(json.loads(line), streams)
        for each in given:
            os.close(each)


def _keep(tell: int, streams: list[int]) -> None:
    """Return in the command; its keeper tells of its pid and its end, and ends with it."""
    pid = os.fork()
    if pid == 0:
        os.close(tell)
        return
    for each in (0, 1, 2, *streams):
        os.close(each)
    os.write(tell, b"%d\n" % pid)
    os.write(tell, b"%d\n" % os.waitpid(pid, 0)[1])
    os._exit(0)


def _become(asked: dict[str, Any], streams: list[int]) -> None:
    """Take on all that the command was given."""
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.argv[1:] = asked["words"]
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["folder"])


def _end(main: Callable[[], None]) -> NoReturn:
    """Run it and end as Python would, but for taking down all that was imported: that takes 0.1 s."""
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    for name in COSTLY:
        import_module(name)
    from draftd.cli import main

    _serve(socket.socket(fileno=int(sys.argv[1])))
    _end(main)
