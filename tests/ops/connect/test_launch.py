"""What an agent is started with."""

from __future__ import annotations

import json

import pytest

from draftd.errors import ConfigError, DraftdError
from draftd.ops.connect.launch import agent, environment, not_installed
from draftd.ops.connect.offer import Offer, OfferedModel

MODELS = [OfferedModel("one", 3, 32768), OfferedModel("two", 7, 32768)]


def test_everything_is_in_the_environment_beside_what_was_there() -> None:
    offer = Offer(MODELS, "one", "http://127.0.0.1:1/v1")
    env = environment(agent("opencode"), offer, "two", "", {"PATH": "/bin"})
    assert env.keys() == {"PATH", "OPENCODE_CONFIG_CONTENT"}
    config = json.loads(env["OPENCODE_CONFIG_CONTENT"])
    assert config["model"] == "speculative/two"
    assert config["provider"]["speculative"]["options"] == {"baseURL": offer.base_url, "apiKey": "local"}


def test_a_key_is_named_in_the_config_and_given_in_its_variable() -> None:
    offer = Offer(MODELS, "one", "http://127.0.0.1:1/v1", needs_key=True)
    env = environment(agent("opencode"), offer, "one", "secret", {})
    assert env["DRAFTD_API_KEY"] == "secret"
    assert "secret" not in env["OPENCODE_CONFIG_CONTENT"]
    assert "{env:DRAFTD_API_KEY}" in env["OPENCODE_CONFIG_CONTENT"]


def test_claude_code_is_led_here_and_nowhere_else() -> None:
    offer = Offer(MODELS, "one", "http://127.0.0.1:1/v1", needs_key=True)
    env = environment(agent("claude"), offer, "two", "secret", {"ANTHROPIC_API_KEY": "mine", "HOME": "/h"})
    assert env == {
        "HOME": "/h",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
        "ANTHROPIC_AUTH_TOKEN": "secret",
        "ANTHROPIC_MODEL": "two",
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "32768",
    }


def test_an_agent_that_draftd_does_not_understand_is_refused_with_what_is_missing() -> None:
    with pytest.raises(DraftdError, match="POST /v1/responses, which draftd does not serve yet"):
        agent("codex")


def test_an_unknown_agent_is_wrong_input() -> None:
    with pytest.raises(ConfigError, match="there are: opencode, claude, codex"):
        agent("aider")


def test_what_is_not_installed_comes_with_the_command_that_installs_it() -> None:
    assert "'npm install -g opencode-ai' installs it" in str(not_installed(agent("opencode")))
