"""The engine as a warm spare: it goes on as an engine does that was given its flags at once."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from draftd.protocol import EXIT_PORT_TAKEN, EXIT_REFUSED, SPARE_TAKEN, SPARE_WARM
from tests.engine.served import DEADLINE_S

pytestmark = pytest.mark.real


class Spare:
    """A spare that is warm, and our end of its socket."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(DEADLINE_S)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "draftd.engine.spare"],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        assert self.socket.recv(1) == SPARE_WARM

    def give(self, *flags: str | Path) -> None:
        self.socket.sendall(json.dumps([str(flag) for flag in flags]).encode() + b"\n")
        assert self.socket.recv(2) == SPARE_TAKEN
        assert self.socket.recv(1) == b""  # it lets go of the socket

    def end(self) -> tuple[int, str]:
        """Wait until it has ended; its exit code, and all that it said."""
        output, _ = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, output.decode()


@pytest.fixture
def spare() -> Iterator[Spare]:
    made = Spare()
    yield made
    made.process.kill()
    made.process.communicate()
    made.socket.close()


def test_flags_that_mlx_lm_refuses(spare: Spare) -> None:
    spare.give("--nonsense")
    code, output = spare.end()
    assert code == EXIT_REFUSED
    started, usage = output.splitlines()[:2]
    assert '"hooks": {"answers": "placed"' in started
    assert usage.startswith("usage: draftd.engine [-h]")


def test_a_taken_port(spare: Spare, pair: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        spare.give("--model", pair[0], "--port", str(port))
        code, output = spare.end()
    assert code == EXIT_PORT_TAKEN
    assert f"draftd-engine: port {port} on 127.0.0.1 is taken" in output


def test_a_spare_that_nobody_wants_ends_well(spare: Spare) -> None:
    spare.socket.shutdown(socket.SHUT_WR)
    assert spare.end()[0] == 0


def test_sigterm_ends_it(spare: Spare) -> None:
    spare.process.terminate()
    assert spare.end()[0] == -signal.SIGTERM
