"""Where the checks work: a folder, ports and a launchd label of their own, all of which are gone afterwards."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from draftd.sockets import LOOPBACK, next_free_port
from tests.mac_check.results import FailedError, SkippedError

DRAFTD = str(Path(sys.executable).with_name("draftd"))
CALL_LIMIT = 150.0  # seconds that a command may take; launchd waits that long for an agent to end
ANSWER_LIMIT = 60.0
POLL = 0.1
STOP_LIMIT = 45.0
ENDING = (signal.SIGTERM, signal.SIGHUP)
MANY_FILES = 1024
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a Mac has proxies in its settings


class Site:
    """`out` is where what the tools print is kept; `presets` are those that the demo is to serve, () for its own
    choice; `throttle` is how long launchd waits before it starts a job again, in seconds.
    """

    def __init__(self, folder: Path, out: Path, presets: tuple[str, ...], throttle: float) -> None:
        self.folder, self.out, self.presets, self.throttle = folder, out, presets, throttle
        self.label = f"dev.draftd.mac-check-{os.getpid()}"
        self.port, self.agent_port = free_port(), free_port()
        self.demo: subprocess.Popen[bytes] | None = None
        self.wired_before: int | None = None
        self.virtual_gpu = ""  # the device's name, if it is not a real one
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DRAFTD_", "XDG_"))}
        self.environ = kept | {"HOME": str(folder / "home"), "DRAFTD_AGENT_LABEL": self.label}
        (folder / "home").mkdir()
        self.linked = _behind_a_link(folder)

    # --- commands ---------------------------------------------------------------------------------------------

    def call(self, *command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command. Raises SkippedError if this machine does not have it."""
        if not shutil.which(command[0], path=self.environ["PATH"]):
            raise SkippedError(f"there is no {command[0]} here")
        return subprocess.run(
            command, env={**self.environ, **(env or {})}, capture_output=True, text=True, errors="replace",
            timeout=CALL_LIMIT, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def draftd(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        """What draftd prints. Raises FailedError with what it says if it ends with another code than 0."""
        done = self.call(DRAFTD, *words, env=env)
        if done.returncode:
            raise FailedError(f"draftd {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def kept(self, name: str, *command: str) -> str:
        """What a tool prints, which is kept in `out`."""
        done = self.call(*command)
        said = f"$ {' '.join(command)}\n{done.stdout}{done.stderr}[{done.returncode}]\n"
        (self.out / f"{name}.txt").write_text(said)
        return done.stdout

    # --- the demo ---------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the demo answers."""
        return f"http://127.0.0.1:{self.port}"

    def start_demo(self, max_files: int) -> None:
        """Start the demo with this limit on open files, the one that macOS gives."""
        command = [DRAFTD, "up", "--demo", "--plain", *self.presets]
        command += ["--port", str(self.port), "--base-port", str(free_port())]
        with (self.out / "demo.log").open("wb") as log:
            self.demo = subprocess.Popen(
                ["sh", "-c", f'ulimit -S -n {max_files}; exec "$@"', "sh", *command],
                env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def needs_demo(self) -> subprocess.Popen[bytes]:
        """The demo's process. Raises SkippedError if it does not run."""
        if self.demo is None or self.demo.poll() is not None:
            raise SkippedError("the demo does not run")
        return self.demo

    def status(self) -> dict[str, Any]:
        """The body of /api/status of the demo."""
        self.needs_demo()
        return status_of(self.port)

    # --- the end ----------------------------------------------------------------------------------------------

    def clean_up(self) -> None:
        """End what still runs, take our agent away, and remove the folder."""
        if self.demo is not None:
            end(self.demo)
        if shutil.which("launchctl", path=self.environ["PATH"]):
            with suppress(Exception):
                self.draftd("launchd", "uninstall")
        for folder in (self.linked, self.folder):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def site(out: Path, presets: tuple[str, ...], throttle: float) -> Iterator[Site]:
    """A site of which nothing is left afterwards, whatever happens: signals that end us raise an exception."""
    out.mkdir(parents=True, exist_ok=True)
    _allow_many_files()
    before = {number: signal.signal(number, lambda *_: sys.exit(1)) for number in ENDING}
    made = Site(Path(tempfile.mkdtemp(prefix="draftd-mac-check-")).resolve(), out, presets, throttle)
    try:
        yield made
    finally:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)  # impatience would leave things behind
        made.clean_up()
        for number, handler in before.items():
            signal.signal(number, handler)


def _behind_a_link(folder: Path) -> Path:
    """A new folder, by a name that goes through a symbolic link: on macOS /tmp is one."""
    if Path("/tmp").is_symlink():
        return Path(tempfile.mkdtemp(prefix="draftd-mac-check-", dir="/tmp"))
    (folder / "link").symlink_to(folder)
    (folder / "linked").mkdir()
    return folder / "link" / "linked"


def _allow_many_files() -> None:
    """We hold as many connections as the daemon; macOS starts with a limit of 256 open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def free_port() -> int:
    """A port that is free, below those that the system hands out by itself."""
    found = next_free_port(random.SystemRandom().randrange(10_000, 30_000), LOOPBACK)
    assert found is not None
    return found


def end(process: subprocess.Popen[bytes]) -> None:
    """End a daemon and what it has started."""
    family = family_of(process.pid)
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT)
    for left in family:
        with suppress(psutil.Error):
            left.kill()
    process.wait()


def family_of(pid: int) -> list[psutil.Process]:
    """A process and all that it has started."""
    with suppress(psutil.Error):
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    return []


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that is dead and only not reaped yet does not."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def until(met: Callable[[], bool], limit: float, what: str) -> float:
    """Wait for something that another process does; returns the seconds that it took. Raises FailedError."""
    began = time.monotonic()
    while not met():
        if time.monotonic() - began > limit:
            raise FailedError(f"{what}: not within {limit:g} s")
        time.sleep(POLL)
    return time.monotonic() - began


def status_of(port: int) -> dict[str, Any]:
    """The body of /api/status of the daemon at this port. Raises OSError if there is none."""
    body: dict[str, Any] = json.loads(ask(f"http://{LOOPBACK}:{port}/api/status"))
    return body


def ask(url: str, body: Mapping[str, Any] | None = None) -> str:
    """The body of an answer. Raises FailedError for any status but 200."""
    data = json.dumps(body).encode() if body is not None else None
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with _DIRECT.open(asked, timeout=ANSWER_LIMIT) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as error:
        raise FailedError(f"{url} answered {error.code}: {error.read().decode()[:300]}") from error


def answers(url: str) -> bool:
    """Whether it answers 200."""
    try:
        ask(url)
    except (OSError, FailedError):
        return False
    return True
