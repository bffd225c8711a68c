"""The calls of launchctl that load the agent, take it away, and tell of it.

launchd lets go of a label some seconds after `bootout` has returned, and later still when the daemon drains; until
then `bootstrap` answers 5 (or 37, or 36 for a second `bootout`). So a bootstrap is tried again for a while.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable

from draftd.errors import DraftdError, NotRunningError
from draftd.ops.launchd import LABEL, Agent

NOT_LOADED = {3, 113}
STILL_LEAVING = {5, 36, 37}
SETTLE = 15.0  # seconds that launchd keeps a label after its job has ended; 5 were measured by others


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
