"""The bodies of /v1/models, in the forms that clients know. Pure.

There is no standard name for the length of a model's context, so it stands under each name that clients look for.
`models` is where Codex looks for details of OpenAI's own models, such as their instructions; for a model that is
not in there it has its own, so the array is empty. (Without the array it complains.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_CONTEXT = ("context_length", "context_window", "max_model_len")


@dataclass(frozen=True, slots=True)
class Listed:
    """A profile as a model. `context` is in tokens, answer included; None if it is not known. `owner` has it."""

    name: str
    aliases: tuple[str, ...] = ()
    context: int | None = None
    owner: str = "draftd"


def model(listed: Listed, created: float, name: str = "") -> dict[str, Any]:
    """One entry, with the profile's name whatever `name` it was asked for by. `created` is in epoch seconds."""
    entry = {"id": listed.name, "object": "model", "created": int(created), "owned_by": listed.owner}
    contexts = dict.fromkeys(_CONTEXT, listed.context) if listed.context else {}
    return {**entry, "aliases": list(listed.aliases), **contexts}


def models(listed: Sequence[Listed], created: float) -> dict[str, Any]:
    """The list for OpenAI's clients, and Codex."""
    return {"object": "list", "data": [model(one, created) for one in listed], "models": []}


def messages_model(listed: Listed, created: float, name: str) -> dict[str, Any]:
    """One entry in Anthropic's form. `created` is in epoch seconds."""
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat(timespec="seconds"),
        "lifecycle": "active",
        "max_input_tokens": listed.context,
        "max_tokens": listed.context,
    }


def messages_models(listed: Sequence[Listed], created: float) -> dict[str, Any]:
    """The list for Anthropic's clients.

    Claude Code offers only models whose names begin with claude or anthropic, as an alias can.
    """
    data = [messages_model(one, created, name) for one in listed for name in (one.name, *one.aliases)]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": first, "last_id": last}
