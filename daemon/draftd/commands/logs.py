"""`draftd logs`: what the workers and the daemon wrote; only what is for people, unless all is asked for."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.text import Text

from draftd.commands.shared import Follow, NewestLines, StateDir, complete_log, make_client, resolve
from draftd.console import colour_of, out
from draftd.errors import ConfigError
from draftd.telemetry.told import clock, in_column, short_names

OWN = "daemon"
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def logs(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="PROFILE",
            help=f"Whose log; '{OWN}' is the daemon's own. Default: all.",
            autocompletion=complete_log,
        ),
    ] = None,
    follow: Follow = False,
    lines: NewestLines = 100,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only lines from then on: 90s, 10m, 2h, 1d, or 14:30.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Every line as the worker wrote it, including those for machines.")
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """Show what the workers wrote, and a line for each request.

    Example: draftd logs balanced -f --since 10m
    """
    begin = 0.0 if since is None else _epoch(since, time.time())
    client = make_client(state_dir)
    rows = client.status()["workers"]
    whose = name if name in {None, OWN} else resolve(client, name, own=True)
    names = short_names(row["name"] for row in rows) if name is None else {}
    with suppress(KeyboardInterrupt):
        for line in client.log(whose, lines, since=begin, raw=raw, follow=follow):
            out.say(_shown(line, names))


def _shown(line: dict[str, Any], names: dict[str, str]) -> Text:
    """A line, with the name of its worker in front where there are lines of several."""
    worker = names.get(line["worker"], line["worker"]) if names else ""
    return Text.assemble(
        (f"{clock(line['time'])} ", "dim"),
        (in_column(worker, names.values()), colour_of(line["worker"])),
        line["text"],
    )


def _epoch(text: str, now: float) -> float:
    """The time that `--since` names, in epoch seconds. Raises ConfigError."""
    if span := re.fullmatch(r"([0-9]{1,6})(s|m|min|h|d)", text):
        return now - int(span[1]) * _UNITS[span[2]]
    if at := re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?", text):
        day = time.localtime(now)
        then = (*day[:3], int(at[1]), int(at[2]), int(at[3] or 0), 0, 0, -1)
        found = time.mktime(then)
        return found if found <= now else found - _UNITS["d"]
    raise ConfigError(f"--since {text}: say 90s, 10m, 2h or 1d, or a time of day such as 14:30")
