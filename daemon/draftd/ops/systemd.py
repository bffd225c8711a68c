"""The systemd user unit: its text, and the calls of systemctl that install it, remove it, and show its state."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from draftd.errors import ConfigError, DraftdError, NotRunningError
from draftd.ops.background import SLACK

UNIT = "draftd.service"
NO_MANAGER = (
    "systemd's user manager cannot be reached: log in as the user that is to run draftd, "
    "not with 'su' or 'sudo'"
)
FACTS = {
    "ActiveState": "state",
    "SubState": "in detail",
    "MainPID": "pid",
    "NRestarts": "restarts",
    "Result": "result",
}
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True, slots=True)
class Unit:
    """What the unit runs. `program` starts draftd, `words` name profiles; `longest_stop` is how long the daemon may
    take to stop, in seconds.
    """

    program: tuple[str, ...]
    words: tuple[str, ...]
    longest_stop: float
    environment: Mapping[str, str]

    @property
    def stop_timeout(self) -> int:
        """Seconds from systemd's SIGTERM to its SIGKILL."""
        return ceil(self.longest_stop) + SLACK

    def text(self) -> str:
        """The unit file. Raises ConfigError for what none can hold."""
        command = " ".join(
            _quoted(word, dollars=True) for word in (*self.program, "up", "--plain", *self.words)
        )
        variables = (
            f"Environment={_quoted(f'{key}={value}')}" for key, value in sorted(self.environment.items())
        )
        lines = [
            "[Unit]",
            "Description=draftd: speculative decoding with mlx-lm",
            "",
            "[Service]",
            "Type=exec",
            f"ExecStart={command}",
            *variables,
            "Restart=on-failure",
            "RestartSec=10",
            "# 2 means a fault that a new start does not mend: a broken profile, a port that is taken",
            "RestartPreventExitStatus=2",
            "# SIGTERM goes to the daemon only, which ends its workers in good order",
            "KillMode=mixed",
            f"TimeoutStopSec={self.stop_timeout}",
            "",
            "[Install]",
            "WantedBy=default.target",
        ]
        return "\n".join(lines) + "\n"


def unit_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where systemd looks for the units of a user."""
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(Path.home(), ".config")
    return Path(base) / "systemd" / "user" / UNIT


def _quoted(text: str, *, dollars: bool = False) -> str:
    """A word as systemd reads it: escapes as in C, `%` begins a specifier and, in a command, `$` a variable."""
    if not text.isprintable() and not set(filter(lambda one: not one.isprintable(), text)) <= set(_ESCAPES):
        raise ConfigError(f"this cannot go into a systemd unit: {text!r}")
    escaped = "".join(_ESCAPES.get(one, one) for one in text).replace("%", "%%")
    return '"' + (escaped.replace("$", "$$") if dollars else escaped) + '"'


def install(file: Path, text: str) -> None:
    """Write the unit and start it, now and at each login; one that is running is restarted. Raises DraftdError."""
    _run(_systemctl("daemon-reload"))  # if that fails, nothing is written
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        made = file.with_suffix(".new")
        made.write_text(text, "utf-8")
        made.replace(file)
    except OSError as error:
        raise DraftdError(f"{file} cannot be written: {error.strerror}") from error
    for command in commands():
        _run(command)


def commands() -> list[list[str]]:
    """What `install` runs once the file is written."""
    return [_systemctl("daemon-reload"), _systemctl("enable", UNIT), _systemctl("restart", UNIT)]


def uninstall(file: Path) -> bool:
    """Stop the service and remove its file; returns whether there was one. Raises DraftdError."""
    if not file.exists():
        return False
    for command in commands_of_removal(file):
        _run(command)
    return True


def commands_of_removal(file: Path) -> list[list[str]]:
    """What `uninstall` runs."""
    return [_systemctl("disable", "--now", UNIT), ["rm", "-f", str(file)], _systemctl("daemon-reload")]


def status() -> dict[str, str]:
    """State, pid and restarts of the service. Raises NotRunningError if there is none."""
    said = _run([*_systemctl("show", UNIT), f"--property=LoadState,{','.join(FACTS)}"])
    facts = dict(line.partition("=")[::2] for line in said.splitlines())
    if facts.get("LoadState") != "loaded":
        raise NotRunningError("systemd has no service of draftd; 'draftd service install' makes one")
    return {name: facts[key] for key, name in FACTS.items() if facts.get(key) not in {None, "", "0"}}


def installed_state_dir(file: Path) -> Path | None:
    """The state folder of the service that is installed; None if there is none, or it does not say."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r'^Environment="DRAFTD_STATE_DIR=((?:[^"\\]|\\.)*)"$', text, re.MULTILINE)
    if not found:
        return None
    back = {escaped: plain for plain, escaped in _ESCAPES.items()}
    return Path(re.sub(r"\\.", lambda one: back.get(one[0], one[0]), found[1]).replace("%%", "%"))


def _systemctl(*words: str) -> list[str]:
    return ["systemctl", "--user", *words]


def _run(command: list[str]) -> str:
    try:
        # No limit of ours: a restart waits for the daemon's stop, which the unit limits by what the settings say.
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise DraftdError(f"{shlex.join(command)} failed: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        hint = f"; {NO_MANAGER}" if "Failed to connect to bus" in said else ""
        raise DraftdError(f"{shlex.join(command)} failed with {done.returncode}: {said}{hint}")
    return done.stdout
