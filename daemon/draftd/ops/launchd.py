"""The launchd agent: its plist made from the template, and the launchctl calls that load it and take it away.

launchd lets go of a label some seconds after `bootout` has returned, and later still when the daemon drains; until
then `bootstrap` answers 5 (or 37, or 36 for a second `bootout`). So a bootstrap is tried again for a while.
"""

from __future__ import annotations

import os
import plistlib
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from draftd.errors import ConfigError, DraftdError, NotRunningError, Problem
from draftd.instance import AGENT

LABEL = AGENT
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
NOT_LOADED = {3, 113}
STILL_LEAVING = {5, 36, 37}
SETTLE = 15.0  # seconds that launchd keeps a label after its job has ended; 5 were measured by others
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
        return self.home / "Library" / "LaunchAgents" / f"{LABEL}.plist"

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
    the models and the way to the hub, the programs. No proxy with a password in it: others may read the agent.

    Raises ConfigError if it holds the API key, which may not go into the agent: it would serve without one.
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
        job = plistlib.loads((home / "Library" / "LaunchAgents" / f"{LABEL}.plist").read_bytes())
        return Path(job["EnvironmentVariables"]["DRAFTD_STATE_DIR"])
    except (OSError, ValueError, plistlib.InvalidFileException, ExpatError, KeyError, TypeError):
        return None


def render(template: bytes, agent: Agent) -> bytes:
    """The plist. Raises ConfigError if the template is not a plist, or has no place for what must go in."""
    try:
        job = plistlib.loads(template)
        job["Label"] = LABEL
        job["ProgramArguments"] = [*agent.program, "up", "--plain", *agent.words]
        job["ExitTimeOut"] = agent.exit_timeout
        given = {"DRAFTD_LOG_FILE": str(agent.log), **agent.environment}
        paths = (
            *given.get("PATH", "").split(os.pathsep),
            *job["EnvironmentVariables"]["PATH"].split(os.pathsep),
        )
        given["PATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
        job["EnvironmentVariables"] |= given
        job["StandardOutPath"] = job["StandardErrorPath"] = str(agent.early_log)
    except (plistlib.InvalidFileException, ExpatError, KeyError, TypeError) as error:
        raise ConfigError(f"the template of the launchd agent is not valid: {error!r}") from error
    return plistlib.dumps(job, sort_keys=False)


def validate(plist: bytes, file: Path) -> None:
    """Raise ConfigError for what launchd would refuse, or only mention in a log."""
    job: dict[str, Any] = plistlib.loads(plist)
    command = job["ProgramArguments"][0]
    if not os.path.isabs(command) or not os.access(command, os.X_OK):
        raise ConfigError("the agent is not valid", (Problem(file, None, f"{command} cannot be run"),))


def bootout(uid: int) -> list[str]:
    """The command that stops the agent and forgets it."""
    return ["launchctl", "bootout", f"gui/{uid}/{LABEL}"]


def bootstrap(uid: int, agent: Agent) -> list[str]:
    """The command that loads and starts the agent."""
    return ["launchctl", "bootstrap", f"gui/{uid}", str(agent.plist)]


def enable(uid: int) -> list[str]:
    """The command that lets the agent start, should somebody have disabled it: that outlasts its removal."""
    return ["launchctl", "enable", f"gui/{uid}/{LABEL}"]


def install(
    agent: Agent,
    plist: bytes,
    uid: int,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write the plist, stop an agent that runs, and start this one. Raises DraftdError."""
    _find_session(uid)
    try:
        agent.log_dir.mkdir(parents=True, exist_ok=True)
        agent.plist.parent.mkdir(parents=True, exist_ok=True)
        made = agent.plist.with_suffix(".new")
        made.write_bytes(plist)
        made.replace(agent.plist)
    except OSError as error:
        raise DraftdError(f"{agent.plist} cannot be written: {error.strerror}") from error
    _run(bootout(uid), NOT_LOADED | STILL_LEAVING)
    _run(enable(uid), set())
    deadline = clock() + agent.exit_timeout + SETTLE
    while _run(bootstrap(uid, agent), STILL_LEAVING if clock() < deadline else set()):
        sleep(1.0)


def _find_session(uid: int) -> None:
    """Raise DraftdError where nobody is logged in at the screen: there launchd refuses the agent however often."""
    if _call(["launchctl", "print", f"gui/{uid}"]).returncode:
        raise DraftdError(
            "nobody is logged in at this Mac's screen (as over SSH), where launchd runs agents; log in there, "
            "or by Screen Sharing (a Mac without a screen: turn on automatic login), then install again"
        )


def uninstall(agent: Agent, uid: int) -> bool:
    """Stop the agent and remove its plist; returns whether there was anything to do. Raises DraftdError."""
    loaded = _run(bootout(uid), NOT_LOADED | STILL_LEAVING) not in NOT_LOADED
    installed = agent.plist.exists()
    agent.plist.unlink(missing_ok=True)
    return loaded or installed


def status(uid: int) -> dict[str, str]:
    """What launchctl says: state, pid, last exit code. Raises NotRunningError if the agent is not loaded."""
    done = _call(["launchctl", "print", f"gui/{uid}/{LABEL}"])
    if done.returncode:
        raise NotRunningError(
            f"launchd has no agent of draftd{_disabled(uid)}; 'draftd launchd install' loads it"
        )
    wanted = {"state", "pid", "last exit code", "runs"}
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.strip().partition(" = ")
        if key in wanted and value:
            found.setdefault(key, value)  # the job's own come first, those of its endpoints later
    return found


def _disabled(uid: int) -> str:
    """macOS writes 'disabled' since 13, and 'true' before."""
    said = _call(["launchctl", "print-disabled", f"gui/{uid}"]).stdout
    return ", which has been disabled" if re.search(rf'"{re.escape(LABEL)}" => (disabled|true)', said) else ""


def dry_run(agent: Agent, uid: int) -> list[str]:
    """What `install` would do, as lines for a shell."""
    return [
        shlex.join(["mkdir", "-p", str(agent.log_dir), str(agent.plist.parent)]),
        shlex.join(["draftd", "launchd", "print", *agent.words]) + f" > {shlex.quote(str(agent.plist))}",
        shlex.join(bootout(uid)),
        shlex.join(enable(uid)),
        shlex.join(bootstrap(uid, agent)),
    ]


def dry_uninstall(agent: Agent, uid: int) -> list[str]:
    """What `uninstall` would do, as lines for a shell."""
    return [shlex.join(bootout(uid)), shlex.join(["rm", "-f", str(agent.plist)])]


def _run(command: list[str], accepted: set[int]) -> int:
    done = _call(command)
    if done.returncode and done.returncode not in accepted:
        said = (done.stderr or done.stdout).strip()
        raise DraftdError(f"{shlex.join(command)} failed with {done.returncode}: {said}")
    return done.returncode


def _call(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DraftdError(f"{shlex.join(command)} failed: {error}") from error
