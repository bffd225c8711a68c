"""`draftd launchd …`: the daemon as a launchd agent of macOS, started at login and kept alive."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import typer

from draftd.commands.background import DryRun, show_log, started_by_hand
from draftd.commands.shared import Follow, NewestLines, ProfileArguments
from draftd.console import err, out
from draftd.errors import DraftdError, NotRunningError
from draftd.hub import cache_dir
from draftd.instance import agent_label, find_daemon
from draftd.ops import background, launchctl, launchd
from draftd.ops.mac_folders import guarded
from draftd.profile_files import load_for
from draftd.profiles import select
from draftd.settings import Settings, load_settings, shipped_dir

app = typer.Typer(
    help="Run the daemon as a launchd agent of macOS.",
    epilog="Example: draftd launchd install balanced",
    no_args_is_help=True,
    add_completion=False,
)
GUARDED = (
    "macOS keeps these from programs in the background: {paths}. Move them elsewhere, or allow {program} in System "
    "Settings, Privacy & Security, Full Disk Access"
)
NO_SCREEN = (
    "nobody is logged in at this Mac's screen, so the agent runs in your background session: after a restart it "
    "comes back with your first login, over SSH or at the screen (or by itself, if automatic login is turned on)"
)


@app.command("print")
def print_(names: ProfileArguments = None) -> None:
    """Print the agent's plist, filled in.

    Example: draftd launchd print balanced
    """
    out.data(_rendered(_agent(load_settings(), names, os.environ), _domain()).decode(), end="")


@app.command()
def install(names: ProfileArguments = None, dry_run: DryRun = False) -> None:
    """Install the agent and start it, now and at each login; one that is running is stopped first.

    Example: draftd launchd install balanced
    """
    settings = load_settings()
    select(load_for(settings), names or [])  # or it would fail at each start
    agent = _agent(settings, names, os.environ)
    if not dry_run:
        _only_on_a_mac()
    domain = _domain()
    plist = _rendered(agent, domain)
    if dry_run:
        _show(launchctl.dry_run(agent, domain))
        return
    launchd.validate(plist, agent.plist)
    _no_other(settings)
    launchctl.install(agent, plist, domain, err.say)
    out.say(f"{agent.plist} is installed and runs")
    if domain.session == "Background":
        out.say(NO_SCREEN, style="yellow")
    if paths := guarded(_paths(settings, agent), Path.home()):
        out.say(GUARDED.format(paths=", ".join(map(str, paths)), program=agent.program[0]), style="yellow")
    out.say("'draftd status' shows the workers, 'draftd launchd logs -f' the log")


@app.command()
def uninstall(dry_run: DryRun = False) -> None:
    """Stop the agent and remove it; its logs stay.

    Example: draftd launchd uninstall --dry-run
    """
    agent = _agent(load_settings())
    if dry_run:
        _show(launchctl.dry_uninstall(agent, os.getuid()))
        return
    _only_on_a_mac()
    done = launchctl.uninstall(agent, os.getuid())
    out.say("the agent is gone" if done else "there was no agent")


@app.command()
def status() -> None:
    """Show what launchd knows about the agent.

    Example: draftd launchd status
    """
    _only_on_a_mac()
    for key, value in launchctl.status(os.getuid()).items():
        out.say(f"{key}: {value}")


@app.command()
def logs(
    follow: Follow = False,
    lines: NewestLines = 100,
) -> None:
    """Show the agent's log: the daemon's own, and what came before it had one.

    Example: draftd launchd logs -f
    """
    _only_on_a_mac()
    agent = _agent(load_settings())
    files = [str(file) for file in (agent.early_log, agent.log) if file.exists()]
    if not files:
        raise DraftdError(f"there is no log in {agent.log_dir} yet")
    # -F goes on with the new file after a rotation.
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), *files]
    show_log(command)


def _paths(settings: Settings, agent: launchd.Agent) -> Iterator[Path]:
    """What the agent reads."""
    yield from (Path(agent.program[0]), settings.profiles_dir(), settings.state_dir, cache_dir())
    for profile in load_for(settings).profiles.values():
        yield from (Path(name) for name in profile.files if os.path.isabs(name))


def _agent(
    settings: Settings, names: list[str] | None = None, environ: Mapping[str, str] | None = None
) -> launchd.Agent:
    kept = background.environment(environ or {})
    return launchd.Agent(
        program=background.program(Path(sys.executable)),
        words=tuple(names or ()),
        home=Path.home(),
        longest_stop=settings.drain_timeout + settings.stop_grace,
        environment=kept | {"DRAFTD_STATE_DIR": str(settings.state_dir)},
    )


def _domain() -> launchctl.Domain:
    """Where the agent is to run; on a machine without launchd, where it would run on most Macs."""
    uid = os.getuid()
    return launchctl.find_domain(uid) if shutil.which("launchctl") else launchctl.domains(uid)[0]


def _rendered(agent: launchd.Agent, domain: launchctl.Domain) -> bytes:
    template = (shipped_dir("launchd") / launchd.TEMPLATE).read_bytes()
    return launchd.render(template, agent, domain.session)


def _only_on_a_mac() -> None:
    if not shutil.which("launchctl"):
        raise DraftdError(
            f"launchd is a part of macOS, and this is {platform.system()}: run 'draftd up --plain' under its own "
            "service manager; 'draftd launchd print' and --dry-run work everywhere"
        )


def _no_other(settings: Settings) -> None:
    """Raises DraftdError if a daemon runs that is not the agent's."""
    try:
        running = find_daemon(settings.state_dir)
    except NotRunningError:
        return
    if running.agent != agent_label():
        raise started_by_hand(running.pid)


def _show(lines: list[str]) -> None:
    for line in lines:
        out.data(line)
