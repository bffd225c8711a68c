"""What an agent is started with."""

from __future__ import annotations

import json

import pytest

from draftd.errors import ConfigError
from draftd.ops.connect.launch import agent, environment, flags, not_installed
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


def test_codex_gets_its_settings_as_flags_and_the_key_in_its_variable() -> None:
    offer = Offer(MODELS, "one", "http://127.0.0.1:1/v1", needs_key=True)
    given = flags(agent("codex"), offer, "two")
    assert given[::2] == ("-c",) * 7
    assert set(given[1::2]) == {
        'model="two"',
        'model_provider="draftd"',
        "model_context_window=32768",
        'model_providers.draftd.name="draftd"',
        'model_providers.draftd.base_url="http://127.0.0.1:1/v1"',
        'model_providers.draftd.wire_api="responses"',
        'model_providers.draftd.env_key="DRAFTD_API_KEY"',
    }
    assert environment(agent("codex"), offer, "two", "secret", {}) == {"DRAFTD_API_KEY": "secret"}
    assert flags(agent("opencode"), offer, "two") == ()


def test_an_unknown_agent_is_wrong_input() -> None:
    with pytest.raises(ConfigError, match="there are: opencode, claude, codex"):
        agent("aider")


def test_what_is_not_installed_comes_with_the_command_that_installs_it() -> None:
    assert "'npm install -g opencode-ai' installs it" in str(not_installed(agent("opencode")))


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("opencode", "NODE_EXTRA_CA_CERTS"),
        ("claude", "NODE_EXTRA_CA_CERTS"),
        ("codex", "CODEX_CA_CERTIFICATE"),
    ],
)
def test_an_agent_trusts_the_daemons_certificate_unless_its_user_has_chosen(name: str, variable: str) -> None:
    offer = Offer(MODELS, "one", "https://127.0.0.1:1/v1", to_trust="/c.pem")
    assert environment(agent(name), offer, "one", "", {})[variable] == "/c.pem"
    assert environment(agent(name), offer, "one", "", {variable: "/mine"})[variable] == "/mine"
