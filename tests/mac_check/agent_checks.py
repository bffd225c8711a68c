"""The checks of a launchd agent with a label, folders and ports of its own.

The shell that installs it has folders by XDG_*; the other shell does not. launchd gives the agent the user's home,
so everything that it reads is named in its plist.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import psutil

from draftd.demo import DRAFT, TARGET
from draftd.ops import launchctl
from tests.mac_check.results import Check, FailedError, SkippedError
from tests.mac_check.site import DRAFTD, Site, family_of, free_port, running, status_of, until

READY_LIMIT = 60.0  # seconds
RELOAD_LIMIT = 30.0
LENGTH, OTHER_LENGTH = 3, 4


class Shells:
    """The variables of the two shells, and their profiles, which are reached through a link."""

    def __init__(self, site: Site) -> None:
        self.profiles = site.linked / "profiles"
        self.other = {"DRAFTD_PROFILES": str(self.profiles)}
        folders = {
            name: str(site.folder / name.lower())
            for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
        }
        ports = {"DRAFTD_PORT": str(site.agent_port), "DRAFTD_BASE_PORT": str(free_port())}
        self.installing = self.other | folders | ports

    def write(self, length: int) -> None:
        """Write the profile."""
        self.profiles.mkdir(exist_ok=True)
        text = f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\nnum_draft_tokens = {length}\n'
        (self.profiles / "check.toml").write_text(text)


def install(site: Site) -> str:
    """The agent is installed, and serves."""
    domain = _domain(site)
    shells = Shells(site)
    shells.write(LENGTH)
    site.draftd("launchd", "install", env=shells.installing)
    took = until(lambda: _ready(site), READY_LIMIT, "the agent's worker ready")
    printed = site.kept("launchctl-print-agent", "launchctl", "print", f"{domain}/{site.label}")
    if "state = running" not in printed:
        raise FailedError(f"launchctl says of {site.label}: {printed[:300]}")
    facts = site.draftd("launchd", "status", env=shells.other)
    if f"domain: {domain}" not in facts or f"pid: {_status(site)['pid']}" not in facts:
        raise FailedError(f"'draftd launchd status' says: {facts}")
    return f"in {domain}, ready after {took:.1f} s"


def status(site: Site) -> str:
    """`draftd status` finds the agent from a shell with other folders."""
    _needs_agent(site)
    shells = Shells(site)
    pids = {name: _pid(site, env) for name, env in (("with", shells.installing), ("without", shells.other))}
    if len(set(pids.values())) != 1:
        raise FailedError(f"the pids differ: {pids}")
    return f"pid {pids['with']} by both shells"


def profile_by_a_link(site: Site) -> str:
    """A profile that is changed through /tmp is read again."""
    _needs_agent(site)
    Shells(site).write(OTHER_LENGTH)

    def in_force() -> bool:
        return bool(_status(site)["workers"][0]["num_draft_tokens"] == OTHER_LENGTH)

    took = until(in_force, RELOAD_LIMIT, "the change in force")
    until(lambda: _ready(site), READY_LIMIT, "the worker ready again")
    return f"in force after {took:.1f} s"


def killed(site: Site) -> str:
    """launchd restarts a killed agent, and nothing of the old one is left."""
    pid = _needs_agent(site)
    family = family_of(pid)
    family[0].kill()
    took = until(lambda: _ready(site) and _status(site)["pid"] != pid, READY_LIMIT, "another agent ready")
    if left := running(family):
        raise FailedError(f"{len(left)} processes of the old one are left")
    return f"another one ready after {took:.1f} s"


def down(site: Site) -> str:
    """What was stopped stays stopped, though launchd keeps the agent alive."""
    pid = _needs_agent(site)
    site.draftd("down", env=Shells(site).other)
    until(lambda: not psutil.pid_exists(pid), READY_LIMIT, "the agent ended")
    time.sleep(1.3 * site.throttle)  # launchd would start it again now
    facts = site.draftd("launchd", "status", env=Shells(site).other)
    site.kept("launchctl-print-stopped", "launchctl", "print", f"{_domain(site)}/{site.label}")
    if "pid:" in facts:
        raise FailedError(f"it runs again: {facts}")
    return f"still down after {1.3 * site.throttle:.1f} s: {', '.join(facts.split(chr(10))[:2])}"


def uninstall(site: Site) -> str:
    """Nothing is left of the agent."""
    domain = _domain(site)
    said = site.draftd("launchd", "uninstall")
    target = f"{domain}/{site.label}"
    until(
        lambda: bool(site.call("launchctl", "print", target).returncode), READY_LIMIT, "launchd let go of it"
    )
    site.kept("launchctl-print-gone", "launchctl", "print", target)
    plist = site.folder / "home" / "Library" / "LaunchAgents" / f"{site.label}.plist"
    if plist.exists():
        raise FailedError(f"{plist} is left")
    if site.call(DRAFTD, "status", env=Shells(site).installing).returncode != 3:  # no daemon
        raise FailedError("a daemon is left")
    return said.strip()


# --- helpers ------------------------------------------------------------------------------------------------


def _domain(site: Site) -> launchctl.Domain:
    for domain in launchctl.domains(os.getuid()):
        if not site.call("launchctl", "print", str(domain)).returncode:
            return domain
    raise SkippedError("launchd has no session of this user")


def _status(site: Site) -> dict[str, Any]:
    return status_of(site.agent_port)


def _pid(site: Site, env: dict[str, str]) -> int:
    return int(json.loads(site.draftd("status", "--json", env=env))["pid"])


def _ready(site: Site) -> bool:
    try:
        return all(row["state"] == "ready" for row in _status(site)["workers"])
    except (OSError, FailedError):  # not up yet
        return False


def _needs_agent(site: Site) -> int:
    """The pid of the agent's daemon. Raises SkippedError if it does not run."""
    try:
        return int(_status(site)["pid"])
    except (OSError, FailedError) as error:
        raise SkippedError("the agent does not run") from error


AGENT = (
    Check("agent installed", install),
    Check("status with and without XDG_*", status),
    Check("profile changed through a link", profile_by_a_link),
    Check("agent killed", killed),
    Check("down stays down", down),
    Check("agent uninstalled", uninstall),
)
