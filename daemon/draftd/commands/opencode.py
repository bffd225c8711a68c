"""`draftd opencode` and `draftd clients`: what other programs need to use the daemon."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from draftd.commands.shared import ProfilesDir, StateDir, make_client, promised_address
from draftd.console import out
from draftd.errors import ConfigError, DraftdError, NotRunningError
from draftd.hub import read_model
from draftd.ops.connect.clients import CLIENTS, client_settings
from draftd.ops.connect.offer import KEY_VARIABLE, Offer, OfferedModel
from draftd.ops.connect.opencode import change, config_file, opencode_config, write
from draftd.ops.drafting_words import drafters_of
from draftd.ops.http import DaemonClient
from draftd.profile_files import load_for
from draftd.protocol import LOOKUP_DRAFTER
from draftd.settings import Settings, load_settings

DEFAULT_CONTEXT = 32768  # tokens, where a model's own config is not here: what the presets' models have
DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def opencode(
    write_it: Annotated[
        bool,
        typer.Option("--write", help="Merge it into OpenCode's own config: shows a diff, keeps a backup."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --write: do not ask.")] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            help="The file to write; default: OPENCODE_CONFIG, else opencode.jsonc or opencode.json "
            "in OpenCode's config folder."
        ),
    ] = None,
    profiles: ProfilesDir = None,
    state_dir: StateDir = None,
) -> None:
    """Show the configuration that makes OpenCode use your profiles, or write it.

    Example: draftd opencode --write
    """
    offer = _offer(profiles, state_dir)
    config = opencode_config(offer)
    if not write_it:
        out.data(json.dumps(config, indent=2))
        return
    changed = change(file or config_file(), config)
    if not (diff := changed.diff()):
        out.say(f"{changed.file} has all of it already; nothing changed")
        return
    for line in diff:
        out.say(Text(line, style=DIFF_STYLES.get(line[:1], "")))
    if not yes:
        out.confirm(f"Write {changed.file}?")
    backup = write(changed, datetime.now())
    kept = f"; the old one is {backup}" if backup else ""
    out.say(f"{changed.file} written{kept}")


def clients(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="CLIENT",
            help=f"One of {', '.join(CLIENTS)}.",
            autocompletion=lambda incomplete: [one for one in CLIENTS if one.startswith(incomplete)],
        ),
    ] = None,
    profiles: ProfilesDir = None,
    state_dir: StateDir = None,
) -> None:
    """Show what to type or paste for curl, the SDKs, editors and agents.

    Example: draftd clients aider
    """
    offer = _offer(profiles, state_dir)
    shown = client_settings(offer)
    if name is not None:
        if name not in shown:
            raise ConfigError(f"there is no client '{name}' here; there are: {', '.join(shown)}")
        out.data(shown[name])
        return
    for title, text in shown.items():
        out.rule(title, align="left")
        out.data(f"{text}\n")
    if offer.needs_key:
        out.say(f"The daemon asks for a key: {KEY_VARIABLE} holds it here.")


def _offer(profiles: Path | None, state_dir: Path | None) -> Offer:
    """The running daemon's models and address; if none runs, what the profiles and settings promise."""
    settings = load_settings(profiles=profiles, state_dir=state_dir)
    needs_key = settings.api_key is not None
    try:
        client = make_client(state_dir)
    except NotRunningError:
        return _promised(settings, needs_key)
    return offer_of(client, needs_key=needs_key)


def offer_of(client: DaemonClient, *, needs_key: bool) -> Offer:
    """What the running daemon offers, with the models of its peers. Raises NotRunningError, DraftdError."""
    body = client.status()
    rows = [
        OfferedModel(
            row["name"],
            row["num_draft_tokens"],
            _context(row["model"]),
            auto_draft=row["auto_draft"],
            lookup=LOOKUP_DRAFTER in drafters_of(row),
        )
        for row in body["workers"]
    ]
    own = {row.name for row in rows}
    rows += [
        OfferedModel(model["id"], 0, model.get("context_length") or DEFAULT_CONTEXT)
        for model in client.models()
        if model["id"] not in own
    ]
    if not rows:
        raise DraftdError("the daemon has no profile of its own, and no peer has told of any model yet")
    return Offer(
        rows,
        body["default_model"] or rows[0].name,
        f"{client.daemon.address}/v1",
        needs_key,
        client.daemon.to_trust,
    )


def _context(model: str) -> int:
    return read_model(model).config.context_length or DEFAULT_CONTEXT


def _promised(settings: Settings, needs_key: bool) -> Offer:
    found = load_for(settings).profiles
    rows = [
        OfferedModel(
            profile.name,
            profile.draft_length,
            _context(profile.model),
            auto_draft=profile.auto_draft,
            lookup=LOOKUP_DRAFTER in profile.all_drafters,
        )
        for profile in found.values()
    ]
    if not rows:
        folder = settings.profiles_dir()
        raise DraftdError(
            f"there is no profile in {folder}; what the peers have, only a running daemon knows"
        )
    default = settings.default_profile if settings.default_profile in found else rows[0].name
    url, to_trust = promised_address(settings)
    return Offer(rows, default, f"{url}/v1", needs_key, to_trust)
