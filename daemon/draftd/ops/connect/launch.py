"""Agents that can be started against the daemon, with all that they need in their environment. Pure.

Nothing is written to the user's own config: OpenCode takes a config from a variable, and merges it over the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from draftd.errors import ConfigError, DraftdError
from draftd.ops.connect.clients import claude_variables
from draftd.ops.connect.offer import KEY_VARIABLE, Offer
from draftd.ops.connect.opencode import opencode_config


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent. `package` is its name at npm, `variables` make its environment from an offer and the daemon's key,
    and `replaces` are variables of the user's own that would lead it elsewhere.
    """

    program: str
    package: str
    variables: Callable[[Offer, str], Mapping[str, str]]
    replaces: frozenset[str] = frozenset()


def _opencode(offer: Offer, key: str) -> dict[str, str]:
    config = {"OPENCODE_CONFIG_CONTENT": json.dumps(opencode_config(offer))}
    return config | ({KEY_VARIABLE: key} if offer.needs_key else {})


AGENTS: Mapping[str, Agent] = {
    "opencode": Agent("opencode", "opencode-ai", _opencode),
    "claude": Agent(
        "claude", "@anthropic-ai/claude-code", claude_variables, frozenset({"ANTHROPIC_API_KEY"})
    ),
}
# What an agent sends its requests to that draftd does not serve.
MISSING: Mapping[str, str] = {"codex": "Codex sends POST /v1/responses, which draftd does not serve yet"}


def agent(name: str) -> Agent:
    """Raises ConfigError for a name that is not known, DraftdError for an agent that cannot talk to draftd."""
    if name in MISSING:
        raise DraftdError(MISSING[name])
    if name not in AGENTS:
        raise ConfigError(f"there is no agent '{name}' here; there are: {', '.join([*AGENTS, *MISSING])}")
    return AGENTS[name]


def not_installed(missing: Agent) -> DraftdError:
    """The error for an agent whose program is not on the PATH."""
    return DraftdError(
        f"there is no {missing.program} on the PATH; 'npm install -g {missing.package}' installs it"
    )


def environment(chosen: Agent, offer: Offer, model: str, key: str, base: Mapping[str, str]) -> dict[str, str]:
    """The agent's environment. `model` is one of the offer's, `key` the daemon's, empty if it asks for none."""
    kept = {name: value for name, value in base.items() if name not in chosen.replaces}
    return {**kept, **chosen.variables(replace(offer, default=model), key or "local")}
