"""The engine's end of the channel: the secret is read once, and nobody else gets the socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from draftd.engine import channel
from draftd.engine.exits import EngineError
from draftd.protocol import CHANNEL_VARIABLE, EXIT_REFUSED

CURIOUS = f"""
import os, subprocess, sys
from draftd.engine import channel, records
number = os.environ["{CHANNEL_VARIABLE}"]
channel.hold(os.environ)
records.report(records.record("started", secret=channel.secret(), variable="{CHANNEL_VARIABLE}" in os.environ))
look = f"import os; os.fstat({{number}})"
sys.exit(subprocess.call([sys.executable, "-c", look], close_fds=False, stderr=subprocess.DEVNULL))
"""


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_an_engine_knows_the_secret_and_hands_nothing_on(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = sockets
    ours.sendall(b"the secret\n")
    done = subprocess.run(
        [sys.executable, "-c", CURIOUS],
        env={**os.environ, CHANNEL_VARIABLE: str(theirs.fileno())},
        pass_fds=(theirs.fileno(),),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, "a process that it started has the channel"
    assert ours.recv(1000) == b'{"event": "started", "secret": "the secret", "variable": false}\n'
    assert done.stderr.startswith(b"draftd-engine {"), "the log has the record too, and nothing else"
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("environ", [{}, {CHANNEL_VARIABLE: ""}])
def test_without_a_channel_there_is_no_secret(environ: dict[str, str]) -> None:
    channel.hold(environ)
    assert channel.secret() == ""


@pytest.mark.parametrize("told", [b"", b"half", b"\n", b"x" * 1000, b"\xff\n"])
def test_without_a_whole_secret_the_engine_does_not_run(
    sockets: tuple[socket.socket, socket.socket], told: bytes
) -> None:
    ours, theirs = sockets
    ours.sendall(told)
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(EngineError, match="gives no secret") as caught:
        channel.hold({CHANNEL_VARIABLE: str(theirs.fileno())})
    assert caught.value.code == EXIT_REFUSED


@pytest.mark.parametrize("number", ["none", "-1", "99999", "9" * 30])
def test_a_descriptor_that_is_not_open_is_refused(number: str) -> None:
    with pytest.raises(EngineError, match=f"{CHANNEL_VARIABLE}={number} gives no secret"):
        channel.hold({CHANNEL_VARIABLE: number})
