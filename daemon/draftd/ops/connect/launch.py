"""Agents that can be started against the daemon, with all that they need in their environment or as flags. Pure.

Nothing is written to the user's own config: OpenCode takes a config from a variable, and merges it over the files;
Codex takes settings as flags.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from draftd.errors import ConfigError, DraftdError
from draftd.ops.connect.clients import TRUST, claude_variables, codex_settings
from draftd.ops.connect.offer import KEY_VARIABLE, Offer
from draftd.ops.connect.opencode import opencode_config


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent. `package` is its name at npm, `variables` makes its environment from an offer and the daemon's key,
    `flags` its first arguments from the offer, and `replaces` are variables of the user's that would lead it
    elsewhere.
    """

    program: str
    package: str
    variables: Callable[[Offer, str], Mapping[str, str]]
    replaces: frozenset[str] = frozenset()
    flags: Callable[[Offer], tuple[str, ...]] = lambda _: ()


def _opencode(offer: Offer, key: str) -> dict[str, str]:
    config = {"OPENCODE_CONFIG_CONTENT": json.dumps(opencode_config(offer))}
    return config | ({KEY_VARIABLE: key} if offer.needs_key else {})


def _codex_key(offer: Offer, key: str) -> dict[str, str]:
    return {KEY_VARIABLE: key} if offer.needs_key else {}


def _codex_flags(offer: Offer) -> tuple[str, ...]:
    settings = codex_settings(offer, f"${KEY_VARIABLE}" if offer.needs_key else "")
    return tuple(word for name, value in settings.items() for word in ("-c", f"{name}={json.dumps(value)}"))


AGENTS: Mapping[str, Agent] = {
    "opencode": Agent("opencode", "opencode-ai", _opencode),
    "claude": Agent(
        "claude", "@anthropic-ai/claude-code", claude_variables, frozenset({"ANTHROPIC_API_KEY"})
    ),
    "codex": Agent("codex", "@openai/codex", _codex_key, flags=_codex_flags),
}


def agent(name: str) -> Agent:
    """Raises ConfigError for a name that is not known."""
    if name not in AGENTS:
        raise ConfigError(f"there is no agent '{name}' here; there are: {', '.join(AGENTS)}")
    return AGENTS[name]


def not_installed(missing: Agent) -> DraftdError:
    """The error for an agent whose program is not on the PATH."""
    return DraftdError(
        f"there is no {missing.program} on the PATH; 'npm install -g {missing.package}' installs it"
    )


def flags(chosen: Agent, offer: Offer, model: str) -> tuple[str, ...]:
    """The agent's first arguments. `model` is one of the offer's."""
    return chosen.flags(replace(offer, default=model))


def environment(chosen: Agent, offer: Offer, model: str, key: str, base: Mapping[str, str]) -> dict[str, str]:
    """The agent's environment. `model` is one of the offer's, `key` the daemon's, empty if it asks for none."""
    kept = {name: value for name, value in base.items() if name not in chosen.replaces}
    if offer.to_trust:  # what the user has said there holds more than our one certificate
        kept.setdefault(TRUST[chosen.program], offer.to_trust)
    return {**kept, **chosen.variables(replace(offer, default=model), key or "local")}
