"""clients: each text is what its program reads, with this daemon's address and models in it."""

from __future__ import annotations

import json
import os
import shlex
import sys
import tomllib
from dataclasses import replace
from unittest.mock import MagicMock, patch

import pytest

from draftd.ops.connect.clients import CLIENTS, client_settings
from draftd.ops.connect.offer import Offer, OfferedModel

MODELS = [OfferedModel("balanced", 5, 32768), OfferedModel("fast", 3, 4096)]
URL = "http://127.0.0.1:8080/v1"
OFFER = Offer(MODELS, "balanced", URL)


@pytest.fixture(params=[False, True], ids=["open", "with a key"])
def shown(request: pytest.FixtureRequest) -> dict[str, str]:
    return client_settings(replace(OFFER, needs_key=request.param))


def test_every_client_is_told_the_address(shown: dict[str, str]) -> None:
    assert shown.keys() == CLIENTS.keys()
    assert all(URL.removesuffix("/v1") in text for text in shown.values())
    assert all("balanced" in text for text in shown.values())


def test_curl_is_one_command_with_a_json_body(shown: dict[str, str]) -> None:
    words = shlex.split(shown["curl"])
    assert words[:3] == ["curl", "-N", f"{URL}/chat/completions"]
    assert json.loads(words[words.index("-d") + 1])["model"] == "balanced"


@pytest.mark.parametrize("name", ["openai", "anthropic", "openai-agents"])
def test_the_sdk_lines_are_python(shown: dict[str, str], name: str) -> None:
    client = MagicMock()
    module = MagicMock(OpenAI=client, AsyncOpenAI=client, Anthropic=client)
    modules = dict.fromkeys(("openai", "anthropic", "agents"), module)
    with patch.dict(sys.modules, modules), patch.dict(os.environ, {"DRAFTD_API_KEY": "secret"}):
        exec(compile(shown[name], name, "exec"), {})
    given = client.call_args.kwargs
    assert given["base_url"] == (URL.removesuffix("/v1") if name == "anthropic" else URL)
    assert given["api_key"] == ("secret" if "DRAFTD_API_KEY" in shown[name] else "local")


def test_opencode_s_config_is_the_one_that_is_written(shown: dict[str, str]) -> None:
    first, _, config = shown["opencode"].partition("\n")
    assert first.startswith("//")
    assert json.loads(config)["provider"]["speculative"]["options"]["baseURL"] == URL


def test_continue_is_yaml(shown: dict[str, str]) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with mlx-lm; only this test needs it")
    models = yaml.safe_load(shown["continue"])["models"]
    assert [(model["model"], model["apiBase"]) for model in models] == [("balanced", URL), ("fast", URL)]
    assert models[1]["defaultCompletionOptions"] == {"contextLength": 4096}


def test_zed_is_a_key_of_its_settings(shown: dict[str, str]) -> None:
    settings = json.loads("{" + shown["zed"].partition("\n")[2] + "}")
    provider = settings["language_models"]["openai_compatible"]["draftd"]
    assert provider["api_url"] == URL
    assert [(model["name"], model["max_tokens"]) for model in provider["available_models"]] == [
        ("balanced", 32768),
        ("fast", 4096),
    ]


def test_claude_code_finds_its_address_without_v1_and_the_window(shown: dict[str, str]) -> None:
    words = shlex.split(shown["claude"])
    assert {f"ANTHROPIC_BASE_URL={URL.removesuffix('/v1')}", "CLAUDE_CODE_MAX_CONTEXT_TOKENS=32768"} < set(
        words
    )
    assert (words[0], words[-1]) == ("export", "claude")


def test_codex_finds_its_provider_and_the_window(shown: dict[str, str]) -> None:
    config = tomllib.loads(shown["codex"])
    assert (config["model"], config["model_context_window"]) == ("balanced", 32768)
    provider = config["model_providers"][config["model_provider"]]
    assert (provider["base_url"], provider["wire_api"]) == (URL, "responses")


def test_a_key_is_taken_from_its_variable() -> None:
    shown = client_settings(replace(OFFER, needs_key=True))
    assert all("DRAFTD_API_KEY" in text for text in shown.values())
    assert not any("local" in text for name, text in shown.items())


def test_a_certificate_that_signs_itself_is_told_to_each_client() -> None:
    trusting = client_settings(replace(OFFER, to_trust="/my folder/cert.pem"))
    assert shlex.split(trusting["curl"])[2:4] == ["--cacert", "/my folder/cert.pem"]
    for name, text in trusting.items():
        assert "'/my folder/cert.pem'" in text
        assert name == "curl" or text.partition("\n")[0].startswith(("# in its env", "// in its env"))
