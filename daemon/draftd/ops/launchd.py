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

TEMPLATE = "dev.draftd.plist"
Session = Literal["Aqua", "Background"]  # at the screen, or without one
SECRET = "DRAFTD_API_KEY"  # noqa: S105 - the name of a variable; `launchctl print` would show its value
PATH_VARIABLES = {
    "DRAFTD_CONFIG",
    "DRAFTD_PROFILES",
    "DRAFTD_STATE_DIR",
    "DRAFTD_LOG_FILE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_TOKEN_PATH",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
}
PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}  # in either case
APPLE_BREW, INTEL_BREW = "/opt/homebrew/bin", "/usr/local/bin"
SLACK = 20  # seconds between the daemon's own longest stop and launchd's SIGKILL


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


def program(python: Path) -> tuple[str, ...]:
    """draftd by an absolute path: the command beside this Python, else the module."""
    command = python.parent / "draftd"
    return (str(command),) if os.access(command, os.X_OK) else (str(python), "-m", "draftd")


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the agent needs from the user's environment to find what a shell finds: draftd's settings and folders,
    the models and the way to the hub, the programs. No proxy with a password in it: others may read the plist.

    Raises ConfigError if it holds the API key, which may not go into the plist: the agent would serve without one.
    """
    environ = {key: value for key, value in environ.items() if value}  # an empty one is unset
    if SECRET in map(str.upper, environ):
        raise ConfigError(
            f"{SECRET} cannot go into the agent, which others may read: put api_key into draftd.toml"
        )
    kept = {
        key: value
        for key, value in environ.items()
        if key.startswith("DRAFTD_") or key in PATH_VARIABLES | {"HF_ENDPOINT"}
    }
    kept |= {key: value for key, value in environ.items() if key.upper() in PROXIES and "@" not in value}
    # launchd starts the agent in "/".
    paths = {key: os.path.abspath(os.path.expanduser(kept[key])) for key in kept.keys() & PATH_VARIABLES}
    if "PATH" in environ:
        kept["PATH"] = os.pathsep.join(filter(os.path.isabs, environ["PATH"].split(os.pathsep)))
    return kept | paths


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
