"""Agents that can be started against the daemon, with all that they need in their environment. Pure.

Nothing is written to the user's own config: OpenCode takes a config from a variable, and merges it over the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from draftd.errors import ConfigError, DraftdError
from draftd.ops.connect.offer import KEY_VARIABLE, Offer
from draftd.ops.connect.opencode import opencode_config


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent. `speaks` is the address that it sends its requests to, and `package` is its name at npm."""

    title: str
    program: str
    package: str
    speaks: str


SPOKEN = "/v1/chat/completions"
AGENTS: Mapping[str, Agent] = {
    "opencode": Agent("OpenCode", "opencode", "opencode-ai", SPOKEN),
    "claude": Agent("Claude Code", "claude", "@anthropic-ai/claude-code", "/v1/messages"),
    "codex": Agent("Codex", "codex", "@openai/codex", "/v1/responses"),
}


def agent(name: str) -> Agent:
    """Raises ConfigError for a name that is not known, DraftdError for an agent that cannot talk to draftd."""
    if name not in AGENTS:
        raise ConfigError(f"there is no agent '{name}' here; there are: {', '.join(AGENTS)}")
    found = AGENTS[name]
    if found.speaks != SPOKEN:
        raise DraftdError(f"{found.title} sends POST {found.speaks}, which draftd does not serve yet")
    return found


def not_installed(missing: Agent) -> DraftdError:
    """The error for an agent whose program is not on the PATH."""
    return DraftdError(
        f"there is no {missing.program} on the PATH; 'npm install -g {missing.package}' installs it"
    )


def environment(offer: Offer, model: str, key: str, base: Mapping[str, str]) -> dict[str, str]:
    """The agent's environment. `model` is one of the offer's, `key` the daemon's, empty if it asks for none."""
    config = opencode_config(replace(offer, default=model))
    added = {"OPENCODE_CONFIG_CONTENT": json.dumps(config)}
    return {**base, **added, **({KEY_VARIABLE: key} if key else {})}
