"""command: what is started for a profile, and when a running child still fits it."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from draftd.profiles import Profile
from draftd.protocol import PROMPT_STORE_VARIABLE, PromptStore
from draftd.workers.command import argv, environment, fingerprint, one_token_request

ENGINE = [sys.executable, "-m", "draftd.engine"]
GUARDIAN = [sys.executable, "-m", "draftd.engine.guardian"]


def profile(**keys: Any) -> Profile:
    return Profile.model_validate({"name": "fast", "model": "org/target", **keys})


DRAFTING = profile(draft_model="org/draft", num_draft_tokens=5)
FOREIGN = profile(command=["serve", "--model={model}", "--port", "{port}"])


def flags(**keys: Any) -> list[str]:
    """The flags that a profile adds to those that every worker has."""
    base = argv(profile(), 8001)
    whole = argv(profile(**keys), 8001)
    assert whole[: len(base)] == base
    return whole[len(base) :]


def test_a_worker_listens_on_loopback_and_lets_no_web_page_call_it() -> None:
    assert argv(profile(), 8001) == [
        *ENGINE,
        *("--model", "org/target"),
        *("--host", "127.0.0.1", "--port", "8001"),
        *("--allowed-origins", "http://127.0.0.1:8001"),
    ]


@pytest.mark.parametrize(
    ("keys", "added"),
    [
        ({"draft_model": "org/draft"}, ["--draft-model", "org/draft", "--num-draft-tokens", "3"]),
        (
            {"draft_model": "org/draft", "num_draft_tokens": 7},
            ["--draft-model", "org/draft", "--num-draft-tokens", "7"],
        ),
        ({"adapter_path": "/adapters/one"}, ["--adapter-path", "/adapters/one"]),
        ({"server": {"trust_remote_code": True}}, ["--trust-remote-code"]),
        ({"server": {"trust_remote_code": False}}, []),
        ({"server": {"use_default_chat_template": True}}, ["--use-default-chat-template"]),
        ({"server": {"log_level": "WARNING"}}, ["--log-level", "WARNING"]),
        ({"server": {"chat_template": "{{ x }}"}}, ["--chat-template", "{{ x }}"]),
        ({"server": {"decode_concurrency": 4}}, ["--decode-concurrency", "4"]),
        ({"server": {"prompt_concurrency": 2}}, ["--prompt-concurrency", "2"]),
        ({"server": {"prefill_step_size": 512}}, ["--prefill-step-size", "512"]),
        ({"server": {"prompt_cache_size": 0}}, ["--prompt-cache-size", "0"]),
        ({"server": {"prompt_cache_bytes": "2GB"}}, ["--prompt-cache-bytes", "2000000000"]),
        ({"server": {"kv_bits": 4}}, ["--kv-bits", "4"]),
        ({"server": {"kv-group-size": 32}}, ["--kv-group-size", "32"]),
        ({"server": {"quantized_kv_start": 0}}, ["--quantized-kv-start", "0"]),
        # what concerns requests or us is no flag
        ({"defaults": {"temperature": 0.5}, "limits": {"queue": 1}, "idle_timeout": 9}, []),
    ],
)
def test_each_key_becomes_the_flag_of_mlx_lm_server(keys: dict[str, Any], added: list[str]) -> None:
    assert flags(**keys) == added


def test_a_table_becomes_one_argument_of_json() -> None:
    name, value = flags(server={"chat_template_args": {"enable_thinking": False, "note": "it's"}})
    assert name == "--chat-template-args"
    assert json.loads(value) == {"enable_thinking": False, "note": "it's"}


def test_a_foreign_command_is_filled_in_and_runs_under_the_guardian() -> None:
    assert argv(FOREIGN, 8003) == [*GUARDIAN, "serve", "--model=org/target", "--port", "8003"]
    braces = profile(command=["x", "{host}", "{{port}}", "{port}:{port}"])
    assert argv(braces, 80)[3:] == ["x", "{host}", "{80}", "80:80"]


def test_what_is_meant_for_the_daemon_does_not_reach_a_child() -> None:
    base = {
        "HF_HOME": "/models",
        "HF_TOKEN": "hub",
        "PATH": "/bin",
        "MY_DRAFTD_API_KEY": "not ours",
        "DRAFTD_API_KEY": "secret",
        "draftd_api_key": "secret",
        "DRAFTD_PORT": "1",
    }
    env = environment(base, offline=False)
    assert not [key for key in env if key.lower().startswith("draftd_")]
    assert "secret" not in env.values()
    kept = {"HF_HOME", "HF_TOKEN", "PATH", "MY_DRAFTD_API_KEY"}
    assert {key: env[key] for key in kept} == {key: base[key] for key in kept}


def test_a_child_writes_at_once_and_imports_nothing_from_where_the_daemon_was_started() -> None:
    env = environment({"PYTHONUNBUFFERED": "", "PYTHONSAFEPATH": ""}, offline=False)
    assert (env["PYTHONUNBUFFERED"], env["PYTHONSAFEPATH"]) == ("1", "1")


def test_an_engine_is_told_where_to_store_prompts_and_its_spare_with_it() -> None:
    store = PromptStore("/state/prompt-caches", 10**9, 3.0)
    env = environment({PROMPT_STORE_VARIABLE: "of another daemon"}, offline=False, store=store)
    assert PromptStore.parse(env[PROMPT_STORE_VARIABLE]) == store
    assert PROMPT_STORE_VARIABLE not in environment({PROMPT_STORE_VARIABLE: "x"}, offline=False)


def test_the_readiness_check_drafts_nothing_and_names_no_other_model() -> None:
    plain = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    assert one_token_request(profile()) == {"model": "default_model", **plain}
    assert one_token_request(DRAFTING) == {"model": "default_model", **plain, "num_draft_tokens": 0}
    assert one_token_request(FOREIGN) == {"model": "org/target", **plain}
    assert DRAFTING.upstream_model == "default_model"


@pytest.mark.parametrize(
    "same",
    [
        {"name": "other"},
        {"aliases": ["x"]},
        {"defaults": {"temperature": 0.1}},
        {"limits": {"memory": "8GB"}},
        {"health": {"start_timeout": 5}},
        {"system_prompt": "terse"},
        {"num_draft_tokens": 7},  # goes with each request
    ],
)
def test_the_fingerprint_stays_when_the_child_can_stay(same: dict[str, Any]) -> None:
    before = profile(draft_model="org/draft")
    assert fingerprint(profile(draft_model="org/draft", **same)) == fingerprint(before)


@pytest.mark.parametrize(
    "other",
    [
        {"model": "org/other"},
        {"draft_model": "org/other"},
        {"adapter_path": "org/adapter"},
        {"port": 9000},
        {"server": {"log_level": "ERROR"}},
    ],
)
def test_the_fingerprint_changes_when_the_child_must(other: dict[str, Any]) -> None:
    keys = {"draft_model": "org/draft"}
    assert fingerprint(profile(**(keys | other))) != fingerprint(profile(**keys))


def test_the_fingerprint_of_a_foreign_command_is_that_of_the_command() -> None:
    def of(*command: str, model: str = "org/target") -> str:
        return fingerprint(profile(model=model, command=list(command)))

    assert of("serve", "{port}") != of("serve", "-v", "{port}")
    assert of("serve", "{port}", "{model}") != of("serve", "{port}", "{model}", model="org/other")
    assert of("serve", "{port}") == of("serve", "{port}", model="org/other")


def test_a_worker_whose_models_are_here_is_kept_from_asking_the_hub() -> None:
    assert environment({}, offline=True)["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in environment({}, offline=False)
    assert environment({"HF_HUB_OFFLINE": "1"}, offline=False)["HF_HUB_OFFLINE"] == "1"
