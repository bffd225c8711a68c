"""The launchd agent: what it runs, and its plist made from the template."""

from __future__ import annotations

import os
import plistlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal
from xml.parsers.expat import ExpatError

from draftd.errors import ConfigError, Problem
from draftd.instance import agent_label
from draftd.ops.background import SLACK

TEMPLATE = "dev.draftd.plist"
Session = Literal["Aqua", "Background"]  # at the screen, or without one
APPLE_BREW, INTEL_BREW = "/opt/homebrew/bin", "/usr/local/bin"


@dataclass(frozen=True, slots=True)
class Agent:
    """What the agent runs, and where its files are. `program` starts draftd, `words` name profiles;
    `longest_stop` is how long the daemon may take to stop, in seconds.
    """

    program: tuple[str, ...]
    words: tuple[str, ...]
    home: Path
    longest_stop: float
    environment: Mapping[str, str]

    @property
    def plist(self) -> Path:
        """Where launchd looks for it."""
        return self.home / "Library" / "LaunchAgents" / f"{agent_label()}.plist"

    @property
    def log_dir(self) -> Path:
        """Where macOS's Console looks for logs."""
        return self.home / "Library" / "Logs" / "draftd"

    @property
    def log(self) -> Path:
        """The daemon's own log, which it rotates."""
        return self.log_dir / "draftd.log"

    @property
    def early_log(self) -> Path:
        """What launchd, Python or a daemon that could not start writes before there is a log."""
        return self.log_dir / "launchd.log"

    @property
    def exit_timeout(self) -> int:
        """Seconds from launchd's SIGTERM to its SIGKILL."""
        return ceil(self.longest_stop) + SLACK


def installed_state_dir(home: Path) -> Path | None:
    """The state folder of the agent that is installed; None if there is none, or it does not say."""
    try:
        job = plistlib.loads((home / "Library" / "LaunchAgents" / f"{agent_label()}.plist").read_bytes())
        return Path(job["EnvironmentVariables"]["DRAFTD_STATE_DIR"])
    except (OSError, ValueError, plistlib.InvalidFileException, ExpatError, KeyError, TypeError):
        return None


def render(template: bytes, agent: Agent, session: Session) -> bytes:
    """The plist. Raises ConfigError if the template is not a plist, or has no place for what must go in."""
    try:
        job = plistlib.loads(template)
        job["Label"] = agent_label()
        job["LimitLoadToSessionType"] = session
        job["ProgramArguments"] = [*agent.program, "up", "--plain", *agent.words]
        job["ExitTimeOut"] = agent.exit_timeout
        given = {"DRAFTD_LOG_FILE": str(agent.log), **agent.environment}
        given["PATH"] = _search_path(given.get("PATH", ""), job["EnvironmentVariables"]["PATH"])
        job["EnvironmentVariables"] |= given
        job["StandardOutPath"] = job["StandardErrorPath"] = str(agent.early_log)
    except (plistlib.InvalidFileException, ExpatError, KeyError, TypeError) as error:
        raise ConfigError(f"the template of the launchd agent is not valid: {error!r}") from error
    return plistlib.dumps(job, sort_keys=False)


def _search_path(own: str, usual: str) -> str:
    """The user's folders of programs, then the usual ones; Homebrew for Apple silicon before the one for Intel."""
    folders = list(dict.fromkeys(filter(None, (*own.split(os.pathsep), *usual.split(os.pathsep)))))
    if APPLE_BREW in folders and INTEL_BREW in folders:
        first = min(folders.index(APPLE_BREW), folders.index(INTEL_BREW))
        folders.remove(APPLE_BREW)
        folders.insert(first, APPLE_BREW)
    return os.pathsep.join(folders)


def validate(plist: bytes, file: Path) -> None:
    """Raise ConfigError for what launchd would refuse, or only mention in a log."""
    job: dict[str, Any] = plistlib.loads(plist)
    command = job["ProgramArguments"][0]
    if not os.path.isabs(command) or not os.access(command, os.X_OK):
        raise ConfigError("the agent is not valid", (Problem(file, None, f"{command} cannot be run"),))
