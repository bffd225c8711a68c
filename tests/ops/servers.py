"""The scripted server on its own, as any OpenAI-compatible server that is not draftd."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness import FAKE_SERVER, free_ports


@contextmanager
def scripted(*flags: str) -> Iterator[str]:
    """Its address, from the moment it listens."""
    port = free_ports()
    command = [*FAKE_SERVER, "--port", str(port), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "fake server" in process.stdout.readline()
            _until_listening(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def _until_listening(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.01)
