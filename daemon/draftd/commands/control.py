"""Commands for a running daemon: status, restart and so on."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from draftd.commands.shared import ProfileArgument, StateDir, make_client, resolve, where_it_runs
from draftd.console import err, out
from draftd.errors import DraftdError, NotRunningError
from draftd.instance import find_daemon
from draftd.live_table import make_live
from draftd.ops.http import DaemonClient
from draftd.settings import load_settings
from draftd.status_table import status_view, workers_table

MIN_ROWS, AROUND = 4, 12  # rows of the table that refreshes, at least; lines around them


def status(
    as_json: Annotated[bool, typer.Option("--json", help="The body of /api/status.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Show the workers: state, port, acceptance, speed.

    Example: draftd status --watch
    """
    client = make_client(state_dir)
    if as_json:
        out.data(json.dumps(client.status(), indent=2))
    elif watch:
        _watch(client)
    else:
        body = client.status()
        out.say(f"draftd {body['version']} at {client.daemon.address}, pid {body['pid']}")
        out.show(status_view(body, out.room))


def _watch(client: DaemonClient) -> None:
    def view() -> RenderableType:
        most = max(MIN_ROWS, out.height - AROUND) if out.is_terminal else None
        return status_view(body, out.room, most)

    body = client.status()
    with suppress(KeyboardInterrupt), make_live(out, view) as live:
        while True:
            live.refresh()
            time.sleep(1)
            body = client.status()


def ps(
    as_json: Annotated[bool, typer.Option("--json", help="The body of /api/status.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Show the workers, as 'draftd status' does.

    Example: draftd ps
    """
    status(as_json=as_json, state_dir=state_dir)


def restart(name: ProfileArgument, state_dir: StateDir = None) -> None:
    """Restart a worker, even a failed one, and wait until it is ready.

    Example: draftd restart balanced
    """
    _order(state_dir, name, "restart", "ready")


def start(name: ProfileArgument, state_dir: StateDir = None) -> None:
    """Start a worker and wait until it is ready.

    Example: draftd start max
    """
    _order(state_dir, name, "start", "ready")


def stop(name: ProfileArgument, state_dir: StateDir = None) -> None:
    """Stop a worker; it stays stopped until it is started.

    Example: draftd stop max
    """
    _order(state_dir, name, "stop", "stopped")


def _order(state_dir: Path | None, word: str, order: str, wanted: str) -> None:
    client = make_client(state_dir)
    name = resolve(client, word, own=True)
    before = _row(client, name)
    shares_with = client.order(name, order)["shares_with"]
    with err.busy(f"{order} {name}"):
        # A restart is done when the worker is ready again in another process.
        while (now := _row(client, name))["state"] != wanted or (
            order == "restart" and now["pid"] == before["pid"]
        ):
            if now["state"] == "failed":
                out.show(workers_table([now], out.room))
                raise DraftdError(f"{name} failed; 'draftd logs {name}' shows why")
            if wanted == "ready" and _has_given_up(now, before):
                raise DraftdError(f"{name} is {now['state']}, and not {wanted}: {now['reason']}")
            time.sleep(0.1)
    also = f", and so are {', '.join(shares_with)}: they share its worker" if shares_with else ""
    out.say(f"{name} is {wanted}{also}")


def _has_given_up(now: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether a worker that was told to start fell asleep instead, say for lack of memory, or was stopped."""
    return now["state"] in {"asleep", "stopped"} and now["since"] != before.get("since")


def _row(client: DaemonClient, name: str) -> dict[str, Any]:
    rows = client.status()["workers"]
    found: dict[str, Any] = next(
        (row for row in rows if row["name"] == name), {"state": "unknown", "pid": None}
    )
    return found


def reload_profiles(state_dir: StateDir = None) -> None:
    """Read the profiles again; only workers whose profile changed restart.

    Example: draftd reload
    """
    changed = make_client(state_dir).reload()
    out.say(f"changed: {', '.join(changed)}" if changed else "nothing changed")


def down(state_dir: StateDir = None) -> None:
    """Stop the daemon: open requests may finish, then the workers end.

    Example: draftd down
    """
    settings = load_settings(state_dir=state_dir)
    state_dir = where_it_runs(settings)
    running = find_daemon(state_dir)
    os.kill(running.pid, signal.SIGTERM)
    with err.busy(f"stopping draftd (pid {running.pid})"):
        while _still_runs(state_dir, running.pid):
            time.sleep(0.1)
    out.say("draftd has stopped")


def _still_runs(state_dir: Path, pid: int) -> bool:
    try:
        return find_daemon(state_dir).pid == pid
    except NotRunningError:
        return False
