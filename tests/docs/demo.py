"""The demo daemon in a process of its own, as it runs for a reader of the pages."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from tests.harness import free_ports

LIMIT = 60.0  # seconds for the start, for the stop, and for a command


@dataclass(frozen=True)
class Demo:
    """A running daemon: where it answers, and the environment of a shell whose commands find it."""

    url: str
    folder: Path
    environment: dict[str, str]

    def addressed(self, text: str) -> str:
        """The text with this daemon's address in place of the usual one."""
        return text.replace("http://127.0.0.1:8080", self.url)

    def call(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command as the reader would."""
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False,
            timeout=LIMIT, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def get(self, path: str) -> str:
        """The body of an answer. Raises HTTPError for any status but 200."""
        with urllib.request.urlopen(self.url + path, timeout=LIMIT) as response:
            text: str = response.read().decode()
            return text


@contextmanager
def demo_daemon(folder: Path, **variables: str) -> Iterator[Demo]:
    """Run `draftd up --demo` on free ports, with a home in `folder` and these variables, until the block ends."""
    port, base_port = free_ports(), free_ports(5)
    environment = {
        "HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120",
        "LANG": "C.UTF-8", "DRAFTD_STATE_DIR": str(folder / "state"), "DRAFTD_PORT": str(port),
        "DRAFTD_BASE_PORT": str(base_port), "DRAFTD_LOG_FILE": str(folder / "draftd.log"),
        "DRAFTD_PEERS": f'[{{"url": "http://127.0.0.1:{free_ports()}"}}]',  # nobody is there; its series are
    } | variables  # fmt: skip
    demo = Demo(f"http://127.0.0.1:{environment['DRAFTD_PORT']}", folder, environment)
    command = [sys.executable, "-m", "draftd", "up", "--demo", "--plain"]
    with subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            _wait_until_ready(demo, daemon)
            yield demo
        finally:
            daemon.terminate()
            assert daemon.wait(LIMIT) == 0


def _wait_until_ready(demo: Demo, daemon: subprocess.Popen[str]) -> None:
    """Read what the command prints until it says where it serves; a daemon that takes too long is ended."""
    assert daemon.stderr is not None
    timer = Timer(LIMIT, daemon.terminate)
    timer.start()
    said = ""
    for line in daemon.stderr:
        said += line
        if line.startswith("draftd serves at"):
            timer.cancel()
            return
    raise AssertionError(f"the demo did not get ready: {said}{(demo.folder / 'draftd.log').read_text()}")
