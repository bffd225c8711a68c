"""The command line: verbs to functions. Exit codes: 0 well, 1 refused or failed, 2 bad input, 3 no daemon runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from daemon import __version__
from daemon.console import what_next, workers_table
from daemon.errors import ConfigError, DraftdError, NotRunningError
from daemon.instance import find as find_daemon
from daemon.ops.client import Client
from daemon.profile_files import load_dir
from daemon.profiles import ProfileSet, select
from daemon.settings import Settings, load_settings, shipped_dir

if TYPE_CHECKING:
    from daemon.app import Daemon

EXIT_FAILED, EXIT_INPUT, EXIT_NOT_RUNNING = 1, 2, 3
SETTLED = {"ready", "failed", "stopped", "backoff"}

app = typer.Typer(
    help="Speculative decoding on your machine: mlx_lm.server workers behind one OpenAI address.",
    epilog="Try it without a model of your own: draftd up --demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

StateDir = Annotated[Path | None, typer.Option(help="Folder of the lock, the address and the logs.")]
Profiles = Annotated[Path | None, typer.Option(help="Folder of profile files (*.toml).")]
Name = Annotated[str, typer.Argument(metavar="PROFILE", help="Name or alias of a profile.")]


def main() -> None:
    """Entry point: errors of ours are told without a traceback."""
    try:
        app()
    except DraftdError as error:
        err.print(f"draftd: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        codes = {ConfigError: EXIT_INPUT, NotRunningError: EXIT_NOT_RUNNING}
        sys.exit(codes.get(type(error), EXIT_FAILED))
    except BrokenPipeError:  # as in `draftd logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"draftd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Options of the command as a whole."""


# --- serving ------------------------------------------------------------------------------------------------


@app.command()
def up(
    names: Annotated[list[str] | None, typer.Argument(metavar="PROFILE", help="Only these profiles.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Serve the built-in demo models.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on. (default: 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. (default: 8080)")] = None,
    base_port: Annotated[int | None, typer.Option(help="First port for workers. (default: 8000)")] = None,
    profiles: Profiles = None,
    state_dir: StateDir = None,
    plain: Annotated[bool, typer.Option("--plain", help="Log lines only, no live view.")] = False,
) -> None:
    """Run the daemon in the foreground.

    Example: draftd up fast --port 8090
    """
    from daemon.app import Daemon
    from daemon.telemetry.logs import configure

    settings = load_settings(
        host=host, port=port, base_port=base_port, profiles=profiles, state_dir=state_dir
    )
    load = _demo_loader(names or []) if demo else _loader(settings, names or [])
    watched = (
        () if demo else tuple(d for d in (settings.profiles_dir(), *settings.prompt_dirs()) if d.is_dir())
    )
    daemon = Daemon(settings, load, watched=watched)
    live = not plain and err.is_terminal
    configure(settings.log_format, "warning" if live and settings.log_level == "info" else settings.log_level)
    try:
        asyncio.run(_serve(daemon, live=live))
    except* DraftdError as group:
        raise group.exceptions[0] from None


def _loader(settings: Settings, names: list[str]) -> Callable[[], ProfileSet]:
    return lambda: select(load_dir(settings.profiles_dir(), settings.prompt_dirs()), names)


def _demo_loader(names: list[str]) -> Callable[[], ProfileSet]:
    """The three presets, with the demo pair in the place of their models."""
    from daemon.demo import DRAFT, TARGET

    presets = load_dir(shipped_dir("profiles"), (shipped_dir("prompts"),))
    models = {"model": str(TARGET), "draft_model": str(DRAFT)}
    demo = {name: profile.model_copy(update=models) for name, profile in presets.profiles.items()}
    return lambda: select(replace(presets, profiles=demo), names)


async def _serve(daemon: Daemon, *, live: bool) -> None:
    from daemon.app import handle_signals

    handle_signals(daemon)
    async with asyncio.TaskGroup() as tasks:
        showing = tasks.create_task(_show_start(daemon, live=live))
        try:
            await daemon.run()
        finally:
            showing.cancel()


async def _show_start(daemon: Daemon, *, live: bool) -> None:
    """A live table until every worker has settled, then what to try next."""
    if live:
        with Live(
            console=err,
            refresh_per_second=8,
            get_renderable=lambda: workers_table(daemon.workers(), err.width),
        ):
            await _until_settled(daemon)
    else:
        await _until_settled(daemon)
    if any(row["state"] == "ready" for row in daemon.workers()):
        err.print(what_next(daemon.url, daemon.default_model), markup=False, highlight=False, soft_wrap=True)


async def _until_settled(daemon: Daemon) -> None:
    await daemon.until_serving()
    while any(row["state"] not in SETTLED for row in daemon.workers()):
        await daemon.until_changed()


# --- asking a running daemon --------------------------------------------------------------------------------


def _client(state_dir: Path | None) -> Client:
    settings = load_settings(state_dir=state_dir)
    return Client(settings.state_dir, settings.api_key.get_secret_value() if settings.api_key else "")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="The body of /api/status.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Show the workers: state, port, acceptance, speed.

    Example: draftd status --watch
    """
    client = _client(state_dir)
    if as_json:
        typer.echo(json.dumps(client.status(), indent=2))
    elif watch:
        with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(workers_table(client.status()["workers"], out.width), refresh=True)
                time.sleep(1)
    else:
        body = client.status()
        out.print(f"draftd {body['version']} at {client.daemon.url}, pid {body['pid']}", highlight=False)
        out.print(workers_table(body["workers"], out.width))


@app.command()
def logs(
    name: Annotated[str | None, typer.Argument(metavar="PROFILE", help="Default: the default model.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many of the newest lines.")] = 100,
    state_dir: StateDir = None,
) -> None:
    """Show what a worker wrote.

    Example: draftd logs balanced -f
    """
    client = _client(state_dir)
    with suppress(KeyboardInterrupt):
        for line in client.log(_resolve(client, name), lines, follow=follow):
            typer.echo(line)


def _resolve(client: Client, word: str | None) -> str:
    """A worker's name from any unambiguous part of it; the default model for none."""
    body = client.status()
    names = [row["name"] for row in body["workers"]]
    if word is None:
        return str(body["default_model"] or names[0])
    candidates = [name for name in names if word in name]
    if word in names or len(candidates) != 1:
        return word  # exact, an alias, or for the daemon to refuse
    return str(candidates[0])


@app.command()
def restart(name: Name, state_dir: StateDir = None) -> None:
    """Restart a worker, a failed one too, and wait until it is ready.

    Example: draftd restart balanced
    """
    _order(state_dir, name, "restart", "ready")


@app.command()
def start(name: Name, state_dir: StateDir = None) -> None:
    """Start a worker and wait until it is ready.

    Example: draftd start max
    """
    _order(state_dir, name, "start", "ready")


@app.command()
def stop(name: Name, state_dir: StateDir = None) -> None:
    """Stop a worker; it stays stopped until it is started.

    Example: draftd stop max
    """
    _order(state_dir, name, "stop", "stopped")


def _order(state_dir: Path | None, word: str, order: str, wanted: str) -> None:
    client = _client(state_dir)
    name = _resolve(client, word)
    before = _row(client, name)
    client.order(name, order)
    with _progress(f"{order} {name}"):
        # A restart is done when the worker is ready again in another process.
        while (now := _row(client, name))["state"] != wanted or (
            order == "restart" and now["pid"] == before["pid"]
        ):
            if now["state"] == "failed":
                out.print(workers_table([now], out.width))
                raise DraftdError(f"{name} failed; 'draftd logs {name}' shows why")
            time.sleep(0.1)
    out.print(f"{name} is {wanted}", highlight=False)


def _row(client: Client, name: str) -> dict[str, Any]:
    rows = client.status()["workers"]
    found: dict[str, Any] = next(
        (row for row in rows if row["name"] == name), {"state": "unknown", "pid": None}
    )
    return found


@contextmanager
def _progress(text: str) -> Iterator[None]:
    with err.status(text):
        yield


@app.command(name="reload")
def reload_profiles(state_dir: StateDir = None) -> None:
    """Read the profiles again; only changed workers restart.

    Example: draftd reload
    """
    changed = _client(state_dir).reload()
    out.print(f"changed: {', '.join(changed)}" if changed else "nothing changed", highlight=False)


@app.command()
def down(state_dir: StateDir = None) -> None:
    """Stop the daemon: open requests may finish, then the workers end.

    Example: draftd down
    """
    settings = load_settings(state_dir=state_dir)
    running = find_daemon(settings.state_dir)
    os.kill(running.pid, signal.SIGTERM)
    with _progress(f"stopping draftd (pid {running.pid})"):
        while _still_runs(settings.state_dir, running.pid):
            time.sleep(0.1)
    out.print("draftd has stopped", highlight=False)


def _still_runs(state_dir: Path, pid: int) -> bool:
    try:
        return find_daemon(state_dir).pid == pid
    except NotRunningError:
        return False


@app.command()
def check(profiles: Profiles = None) -> None:
    """Check the profiles without starting anything.

    Example: draftd check --profiles ./profiles
    """
    settings = load_settings(profiles=profiles)
    found = load_dir(settings.profiles_dir(), settings.prompt_dirs())
    for profile in found.profiles.values():
        drafting = (
            f"{profile.draft_length} draft tokens from {profile.draft_model}"
            if profile.draft_model
            else "no drafting"
        )
        out.print(f"{profile.name}: {profile.model}, {drafting}", highlight=False, soft_wrap=True)
    out.print(
        f"{len(found.profiles)} profiles in {settings.profiles_dir()} are valid",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
