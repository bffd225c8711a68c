"""A daemon of the bench's own: other ports, another state folder, generated profiles. The user's is left alone.

It ends with us, however we end: a shell beside it holds a pipe to us, and ends it when that pipe closes. Otherwise
two loaded models would stay in memory after a SIGKILL, and nothing would end them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from draftd.errors import DraftdError, NotRunningError
from draftd.ops.http import DaemonClient
from draftd.profiles import Profile

# The shell becomes the daemon; the part of it that stays behind waits for the pipe to close.
_TETHER = 'exec 3<&0 </dev/null; { cat <&3; kill $$; } >/dev/null 2>&1 & exec 3<&-; exec "$@"'
_POLL = 0.2  # seconds between looks at workers that load
_MAX_EXIT_DELAY = 2.0  # seconds until the daemon reports that a worker ended under a request
_MAX_STOP = 60.0  # seconds; the daemon drains and kills its workers in less

Rows = list[dict[str, Any]]


@contextmanager
def private_daemon(profiles: Mapping[str, Profile], show: Callable[[Rows], object]) -> Iterator[str]:
    """The address of a daemon that serves `profiles`, once all are ready; `show` gets the rows meanwhile.

    Raises DraftdError if a worker cannot be loaded; one raised inside gets the last words of workers that ended.
    """
    with tempfile.TemporaryDirectory(prefix="draftd-bench-") as name, _ending_in_order():
        folder = Path(name)
        process = _spawn(folder, profiles)
        try:
            yield _until_ready(folder, process, show)
        except DraftdError as error:
            raise DraftdError(f"{error}{_last_words(folder)}") from error
        finally:
            _stop(process)


def to_toml(profile: Profile) -> str:
    """A profile file. JSON's strings, numbers and lists are also TOML's; its objects become inline tables."""
    data = profile.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"name"})
    return "".join(f"{key} = {_value(value)}\n" for key, value in data.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}"
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _spawn(folder: Path, profiles: Mapping[str, Profile]) -> subprocess.Popen[bytes]:
    (folder / "profiles").mkdir()
    for name, profile in profiles.items():
        (folder / "profiles" / f"{name}.toml").write_text(to_toml(profile), "utf-8")
    (folder / "draftd.toml").touch()  # in the place of the user's settings
    options = ["--profiles", str(folder / "profiles"), "--state-dir", str(folder / "state")]
    options += ["--port", str(_free_port()), "--base-port", str(_free_port())]
    command = [sys.executable, "-m", "draftd", "up", "--plain", *options]
    env = {key: value for key, value in os.environ.items() if not key.upper().startswith("DRAFTD_")}
    env |= {"DRAFTD_CONFIG": str(folder / "draftd.toml"), "PYTHONSAFEPATH": "1"}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            ["/bin/sh", "-c", _TETHER, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=env,
            start_new_session=True,  # Ctrl-C is for us, who then end it
        )


def _until_ready(folder: Path, process: subprocess.Popen[bytes], show: Callable[[Rows], object]) -> str:
    while True:
        if process.poll() is not None:
            last = (folder / "log").read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise DraftdError(f"the bench's own daemon ended: {' '.join(last) or 'without a word'}")
        with suppress(NotRunningError):
            client = DaemonClient(folder / "state")
            rows: Rows = client.status()["workers"]
            show(rows)
            for row in rows:
                if row["state"] == "failed":
                    raise DraftdError(f"the worker '{row['name']}' cannot be loaded")
            if rows and all(row["state"] == "ready" for row in rows):
                return client.daemon.url
        time.sleep(_POLL)


def _last_words(folder: Path) -> str:
    """Why workers ended, for an error that only saw them gone: on a Mac too little memory ends a process."""
    deadline = time.monotonic() + _MAX_EXIT_DELAY
    with suppress(DraftdError):
        while time.monotonic() < deadline:
            rows = DaemonClient(folder / "state").status()["workers"]
            if ended := [row for row in rows if row["last_exit"]]:
                return "".join(f"\n{_ended(row)}" for row in ended)
            time.sleep(_POLL)
    return ""


def _ended(row: Mapping[str, Any]) -> str:
    last = row["last_exit"]
    lines = "".join(f"\n    {line}" for line in last["lines"][-3:])
    return f"the worker '{row['name']}' of {row['model']} ended: {last['reason']} ({last['meaning']}){lines}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    if process.poll() is not None:  # it ended by itself: the rest of its shell must not signal its number
        _kill_group(process)
    process.stdin.close()
    try:
        process.wait(_MAX_STOP)
    except subprocess.TimeoutExpired:
        _kill_group(process)
        process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to what is left of it. macOS answers EPERM where all that is left are zombies."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP leave by the way that ends the daemon and removes its folder."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
