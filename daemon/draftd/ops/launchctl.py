"""The calls of launchctl that load the agent, remove it, and show its status.

An agent lives in a domain of launchd: in the one of the session at the screen, or, where nobody is logged in there
(as on a Mac mini without a screen, reached over SSH), in the user's own. The latter takes agents of the session
type Background only.

launchd releases a label some seconds after `bootout` has returned, and later still when the daemon drains; until
then `bootstrap` answers 5 (or 37, or 36 for a second `bootout`). So a bootstrap is tried again for a while.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from draftd.errors import DraftdError, NotRunningError
from draftd.instance import agent_label
from draftd.ops.launchd import Agent, Session

NOT_LOADED = {3, 113}
NO_DOMAIN = {112, 125}
STILL_LEAVING = {5, 36, 37}
SETTLE = 15.0  # seconds that launchd keeps a label after its job has ended; others have measured 5


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain of launchd that runs a user's agents, such as 'gui/501'."""

    kind: Literal["gui", "user"]
    uid: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.uid}"

    @property
    def session(self) -> Session:
        """What LimitLoadToSessionType has to say for an agent to be taken here."""
        return "Aqua" if self.kind == "gui" else "Background"


def domains(uid: int) -> tuple[Domain, Domain]:
    """Where the user's agent can be; the better one first."""
    return Domain("gui", uid), Domain("user", uid)


def find_domain(uid: int) -> Domain:
    """The domain for the agent. One that does not exist would refuse it every time. Raises DraftdError."""
    for domain in domains(uid):
        if not _call(["launchctl", "print", str(domain)]).returncode:
            return domain
    raise DraftdError(
        f"launchd knows no session of this user ({' and '.join(map(str, domains(uid)))} do not exist): log in at "
        "this Mac's screen or over SSH as the user who is to run draftd, not by 'su' or 'sudo', then install again"
    )


def bootout(domain: Domain) -> list[str]:
    """The command that stops the agent and forgets it."""
    return ["launchctl", "bootout", f"{domain}/{agent_label()}"]


def bootstrap(domain: Domain, agent: Agent) -> list[str]:
    """The command that loads and starts the agent."""
    return ["launchctl", "bootstrap", str(domain), str(agent.plist)]


def enable(domain: Domain) -> list[str]:
    """The command that lets the agent start even if somebody has disabled it, which outlasts its removal."""
    return ["launchctl", "enable", f"{domain}/{agent_label()}"]


def install(
    agent: Agent,
    plist: bytes,
    domain: Domain,
    tell: Callable[[str], object],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write the plist, stop a running agent, start this one; `tell` if that takes long. Raises DraftdError."""
    try:
        agent.log_dir.mkdir(parents=True, exist_ok=True)
        agent.plist.parent.mkdir(parents=True, exist_ok=True)
        made = agent.plist.with_suffix(".new")
        made.write_bytes(plist)
        made.replace(agent.plist)
    except OSError as error:
        raise DraftdError(f"{agent.plist} cannot be written: {error.strerror}") from error
    limit = SETTLE + (agent.exit_timeout if _take_away(domain.uid) else 0)
    _run(enable(domain), set())
    deadline = clock() + limit
    told = False
    while code := _run(bootstrap(domain, agent), STILL_LEAVING if clock() < deadline else set()):
        if not told:
            tell(f"launchd does not take the agent yet (error {code}); trying again for {limit:.0f} s")
        told = True
        sleep(1.0)


def uninstall(agent: Agent, uid: int) -> bool:
    """Stop the agent and remove its plist; returns whether there was anything to do. Raises DraftdError."""
    loaded = _take_away(uid)
    installed = agent.plist.exists()
    agent.plist.unlink(missing_ok=True)
    return loaded or installed


def _take_away(uid: int) -> bool:
    """Stop the agent wherever it is loaded: it may have been installed from another kind of session."""
    codes = [_run(bootout(domain), NOT_LOADED | NO_DOMAIN | STILL_LEAVING) for domain in domains(uid)]
    return any(code not in NOT_LOADED | NO_DOMAIN for code in codes)


def status(uid: int) -> dict[str, str]:
    """The domain, state, pid and last exit code of the agent. Raises NotRunningError if it is not loaded."""
    for domain in domains(uid):
        done = _call(["launchctl", "print", f"{domain}/{agent_label()}"])
        if not done.returncode:
            return {"domain": str(domain), **_facts(done.stdout)}
    disabled = ", which has been disabled" if any(map(_is_disabled, domains(uid))) else ""
    raise NotRunningError(f"launchd has no agent of draftd{disabled}; 'draftd launchd install' loads it")


def _facts(printed: str) -> dict[str, str]:
    wanted = {"state", "pid", "last exit code", "runs"}
    found: dict[str, str] = {}
    for line in printed.splitlines():
        key, _, value = line.strip().partition(" = ")
        if key in wanted and value:
            found.setdefault(key, value)  # the job's own come first, those of its endpoints later
    return found


def _is_disabled(domain: Domain) -> bool:
    """macOS writes 'disabled' from 13 on, and 'true' before."""
    said = _call(["launchctl", "print-disabled", str(domain)]).stdout
    return re.search(rf'"{re.escape(agent_label())}" => (disabled|true)', said) is not None


def dry_run(agent: Agent, domain: Domain) -> list[str]:
    """What `install` would do, as lines for a shell."""
    return [
        shlex.join(["mkdir", "-p", str(agent.log_dir), str(agent.plist.parent)]),
        shlex.join(["draftd", "launchd", "print", *agent.words]) + f" > {shlex.quote(str(agent.plist))}",
        *(shlex.join(bootout(each)) for each in domains(domain.uid)),
        shlex.join(enable(domain)),
        shlex.join(bootstrap(domain, agent)),
    ]


def dry_uninstall(agent: Agent, uid: int) -> list[str]:
    """What `uninstall` would do, as lines for a shell."""
    return [
        *(shlex.join(bootout(domain)) for domain in domains(uid)),
        shlex.join(["rm", "-f", str(agent.plist)]),
    ]


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
