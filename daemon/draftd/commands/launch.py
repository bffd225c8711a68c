"""`draftd launch`: somebody else's agent, started against the running daemon."""

from __future__ import annotations

import os
import shutil
from typing import Annotated

import typer

from draftd.commands.opencode import offer_of
from draftd.commands.shared import StateDir, complete_profile, make_client, resolve
from draftd.ops.connect.launch import AGENTS, agent, environment, flags, not_installed
from draftd.settings import load_settings


def _agents(incomplete: str) -> list[str]:
    return [name for name in AGENTS if name.startswith(incomplete)]


def launch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="AGENT",
            help=f"One of {', '.join(AGENTS)}.",
            autocompletion=_agents,
        ),
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="For the agent, after two dashes.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The profile to begin with; default: the daemon's own.", autocompletion=complete_profile
        ),
    ] = None,
    state_dir: StateDir = None,
) -> None:
    """Start an agent with everything set for the running daemon; its own config stays as it is.

    Example: draftd launch opencode --model fast -- run "What is in this folder?"
    """
    chosen = agent(name)
    client = make_client(state_dir)
    begins_with = resolve(client, model)
    program = shutil.which(chosen.program)
    if program is None:
        raise not_installed(chosen)
    key = load_settings(state_dir=state_dir).api_key
    secret = key.get_secret_value() if key else ""
    offer = offer_of(client, needs_key=key is not None)
    env = environment(chosen, offer, begins_with, secret, os.environ)
    os.execve(program, [program, *flags(chosen, offer, begins_with), *(arguments or ())], env)
