"""profiles: every key of a profile, what is refused, and how one is named on the command line."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from draftd.errors import ConfigError
from draftd.profile_tables import HealthPolicy, Limits, RequestDefaults, RestartPolicy, ServerFlags
from draftd.profiles import Profile, ProfileSet, find_profile, select


def profile(**keys: Any) -> Profile:
    """A profile with these keys."""
    return Profile.model_validate({"name": "fast", "model": "org/target"} | keys)


def refusal(**keys: Any) -> tuple[str, str]:
    """The key at fault ('' for the profile as a whole) and the reason."""
    with pytest.raises(ValidationError) as caught:
        profile(**keys)
    (error,) = caught.value.errors()
    return ".".join(str(part) for part in error["loc"]), error["msg"].removeprefix("Value error, ")


# --- keys ---------------------------------------------------------------------------------------------------


def test_a_model_is_all_that_a_profile_must_have() -> None:
    assert profile().model_dump() == {
        "name": "fast",
        "model": "org/target",
        "draft_model": None,
        "num_draft_tokens": None,
        "max_draft_tokens": None,
        "drafters": None,
        "adapter_path": None,
        "aliases": (),
        "port": None,
        "autostart": True,
        "idle_timeout": 0,
        "pin": False,
        "share_engine": None,
        "native": (),
        "system_prompt": None,
        "system_prompt_mode": "default",
        "command": (),
        "acceptance_pattern": None,
        "defaults": RequestDefaults().model_dump(),
        "server": ServerFlags().model_dump(),
        "limits": Limits().model_dump(),
        "restart": RestartPolicy().model_dump(),
        "health": HealthPolicy().model_dump(),
        "distributed": None,
    }


def test_the_defaults_of_the_tables_are_the_ones_we_promise() -> None:
    assert set(RequestDefaults().model_dump().values()) == {None}
    assert set(ServerFlags().model_dump().values()) == {None, False}
    assert Limits().model_dump() == {"memory": None, "queue": 32, "concurrency": None}
    assert RestartPolicy().model_dump() == {
        "initial_delay": 1,
        "max_delay": 60,
        "max_failures": 5,
        "window": 300,
        "stable_delay": 0.1,
    }
    assert HealthPolicy().model_dump() == {
        "interval": 2,
        "timeout": 2,
        "failures": 3,
        "start_timeout": 900,
        "load_stall_timeout": 120,
        "stall_timeout": None,
    }


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("draft_model", "org/draft", "org/draft"),
        ("adapter_path", "org/adapter", "org/adapter"),
        ("aliases", ["gpt-4o", "org/name:tag"], ("gpt-4o", "org/name:tag")),
        ("port", 65535, 65535),
        ("autostart", False, False),
        ("idle_timeout", 600, 600.0),
        ("system_prompt", "terse", "terse"),
        ("system_prompt_mode", "prepend", "prepend"),
        ("system_prompt_mode", "replace", "replace"),
        ("system_prompt_mode", "off", "off"),
        ("command", ["serve", "--port={port}"], ("serve", "--port={port}")),
    ],
)
def test_each_key_is_read(key: str, value: Any, read: Any) -> None:
    assert getattr(profile(**{key: value}), key) == read


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 0.7),
        ("top_p", 1.0),
        ("top_k", 0),
        ("min_p", 0.05),
        ("max_tokens", 1),
        ("seed", -7),
        ("stop", "</s>"),
        ("stop", ["a", "b"]),
        ("repetition_penalty", 1.1),
        ("repetition_context_size", 20),
        ("presence_penalty", -2.0),
        ("frequency_penalty", 2.0),
        ("xtc_probability", 0.5),
        ("xtc_threshold", 0.5),
        ("chat_template_kwargs", {"enable_thinking": False, "depth": [1, {"x": None}]}),
    ],
)
def test_each_request_default_is_read(key: str, value: Any) -> None:
    assert getattr(profile(defaults={key: value}).defaults, key) == value


@pytest.mark.parametrize("hyphens", [False, True])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trust_remote_code", True),
        ("log_level", "INFO"),
        ("chat_template", "{{ x }}"),
        ("use_default_chat_template", True),
        ("chat_template_args", {"enable_thinking": False}),
        ("decode_concurrency", 1),
        ("prompt_concurrency", 1),
        ("prefill_step_size", 1),
        ("prompt_cache_size", 0),
        ("prompt_cache_bytes", 1000),
        ("kv_bits", 8),
        ("kv_group_size", 64),
        ("quantized_kv_start", 0),
    ],
)
def test_each_server_flag_is_read_with_either_kind_of_stroke(key: str, value: Any, hyphens: bool) -> None:
    written = key.replace("_", "-") if hyphens else key
    assert getattr(profile(server={written: value}).server, key) == value


@pytest.mark.parametrize(
    ("size", "count"), [("8GB", 8 * 10**9), ("8GiB", 8 * 2**30), ("500 MB", 5 * 10**8), (4096, 4096)]
)
def test_a_size_may_be_written_with_its_unit(size: str | int, count: int) -> None:
    assert profile(limits={"memory": size}).limits.memory == count
    assert profile(server={"prompt_cache_bytes": size}).server.prompt_cache_bytes == count


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"modle": "x"}, "modle"),
        ({"draft-model": "x"}, "draft-model"),
        ({"defaults": {"temprature": 1}}, "defaults.temprature"),
        ({"defaults": {"model": "x"}}, "defaults.model"),
        ({"server": {"host": "0.0.0.0"}}, "server.host"),
        ({"server": {"port": 1}}, "server.port"),
        ({"server": {"temp": 1.0}}, "server.temp"),
        ({"limits": {"cpu": 1}}, "limits.cpu"),
        ({"restart": {"retries": 1}}, "restart.retries"),
        ({"health": {"url": "x"}}, "health.url"),
    ],
)
def test_an_unknown_key_is_refused(keys: dict[str, Any], place: str) -> None:
    assert refusal(**keys) == (place, "Extra inputs are not permitted")


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("table", "key", "values"),
    [
        ("", "num_draft_tokens", [0, 65, -1, 3.0, "3", True, "Auto"]),
        ("", "max_draft_tokens", [0, 65, "8", True]),
        ("", "port", [0, 65536, "8000", True]),
        ("", "autostart", ["yes", 1]),
        ("", "idle_timeout", [-1, NAN, INFINITY, "60"]),
        ("", "system_prompt_mode", ["append", ""]),
        ("", "model", ["", "  ", 5, "a\0b", "--trust-remote-code"]),
        ("defaults", "temperature", [-0.1, 5.1, NAN, "0.5"]),
        ("defaults", "top_p", [-0.1, 1.1]),
        ("defaults", "top_k", [-1, 1.5]),
        ("defaults", "min_p", [-0.1, 1.1]),
        ("defaults", "max_tokens", [0, 10.0]),
        ("defaults", "repetition_penalty", [-1.0, INFINITY]),
        ("defaults", "repetition_context_size", [-1]),
        ("defaults", "presence_penalty", [-2.1, 2.1]),
        ("defaults", "frequency_penalty", [-2.1, 2.1]),
        ("defaults", "xtc_probability", [-0.1, 1.1]),
        ("defaults", "xtc_threshold", [-0.1, 0.6]),
        ("server", "log_level", ["info", "TRACE"]),
        ("server", "kv_bits", [1, 7, "4"]),
        ("server", "kv_group_size", [16]),
        ("server", "decode_concurrency", [0]),
        ("server", "prompt_concurrency", [0]),
        ("server", "prefill_step_size", [0]),
        ("server", "prompt_cache_size", [-1]),
        ("server", "prompt_cache_bytes", [0, -1, "much"]),
        ("server", "quantized_kv_start", [-1]),
        ("limits", "memory", [0, -1, "-8GB", "8 apples", True]),
        ("limits", "queue", [-1]),
        ("limits", "concurrency", [0]),
        ("restart", "initial_delay", [0, -1, NAN, INFINITY]),
        ("restart", "max_delay", [0]),
        ("restart", "max_failures", [0]),
        ("restart", "window", [0]),
        ("restart", "stable_delay", [0]),
        ("health", "interval", [0, INFINITY]),
        ("health", "timeout", [0]),
        ("health", "failures", [0]),
        ("health", "start_timeout", [0]),
        ("health", "load_stall_timeout", [0, NAN]),
        ("health", "stall_timeout", [0, NAN]),
    ],
)
def test_a_value_outside_its_range_or_type_is_refused(table: str, key: str, values: list[Any]) -> None:
    draft = {"draft_model": "org/draft"} if key == "num_draft_tokens" else {}
    for value in values:
        keys = {table: {key: value}} if table else {key: value}
        assert refusal(**draft, **keys)[0] == (f"{table}.{key}" if table else key)


@pytest.mark.parametrize("key", ["chat_template_kwargs", "chat_template_args"])
def test_what_json_cannot_say_is_refused_in_a_table_too(key: str) -> None:
    table = "defaults" if key == "chat_template_kwargs" else "server"
    for value in (NAN, INFINITY):
        place, reason = refusal(**{table: {key: {"a": [value]}}})
        assert place.startswith(f"{table}.")
        assert "finite" in reason


BAD_NAMES = [
    "",
    ".",
    "..",
    "../fast",
    "a..b",
    "%2f",
    "a%2fb",
    "a/b",
    "a\\b",
    "a\0b",
    "a\n",
    "a b",
    ".hidden",
    "-fast",
    "é",
    "x" * 101,
    "x" * 200,
]


@pytest.mark.fault(41)
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    assert refusal(name=name)[0] == "name"
    assert refusal(system_prompt=name)[0] == "system_prompt"
    if name != "a/b":  # the name of a hub model is a fine alias
        assert refusal(aliases=["fine", name])[0] == "aliases.1"


@pytest.mark.parametrize("name", ["fast", "qwen2.5-3b_4bit", "0", "x" * 100])
def test_a_plain_name_is_taken(name: str) -> None:
    assert profile(name=name, aliases=[name], system_prompt=name).name == name


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"num_draft_tokens": 3}, "num_draft_tokens needs a draft_model"),
        ({"num_draft_tokens": "auto"}, "num_draft_tokens needs a draft_model"),
        (
            {"draft_model": "org/draft", "num_draft_tokens": 3, "max_draft_tokens": 5},
            'max_draft_tokens needs num_draft_tokens = "auto"',
        ),
        ({"native": ["messages"]}, "native needs a command: draftd translates for its own engine"),
        ({"command": ["serve"]}, "command must contain {port}: the daemon chooses the port"),
        (
            {"command": ["serve", "{port}"], "draft_model": "org/draft", "adapter_path": "x"},
            "command replaces mlx_lm.server: adapter_path, draft_model would have no effect",
        ),
        (
            {"command": ["serve", "{port}"], "server": {"prompt_cache_size": 1}},
            "command replaces mlx_lm.server: server would have no effect",
        ),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(keys: dict[str, Any], reason: str) -> None:
    assert refusal(**keys) == ("", reason)


def test_a_log_that_would_hold_prompts_is_refused() -> None:
    place, reason = refusal(server={"log_level": "DEBUG"})
    assert place == "server"
    assert reason.startswith("log_level DEBUG writes every prompt")


@pytest.mark.parametrize("keys", [{}, {"draft_model": "org/draft"}])
def test_a_quantized_cache_goes_with_and_without_a_draft(keys: dict[str, Any]) -> None:
    assert profile(server={"kv_bits": 4}, **keys).server.kv_bits == 4


# --- what follows from the keys -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "draft_length", "concurrency"),
    [
        ({}, 0, 8),
        ({"draft_model": "org/draft"}, 3, 4),
        ({"draft_model": "org/draft", "num_draft_tokens": 7}, 7, 4),
        ({"draft_model": "org/draft", "num_draft_tokens": "auto"}, 8, 4),
        ({"draft_model": "org/draft", "num_draft_tokens": "auto", "max_draft_tokens": 16}, 16, 4),
        ({"draft_model": "org/draft", "limits": {"concurrency": 2}}, 3, 2),
        ({"limits": {"concurrency": 3}}, 0, 3),
        ({"command": ["serve", "{port}"]}, 0, 8),
    ],
)
def test_draft_length_and_concurrency(keys: dict[str, Any], draft_length: int, concurrency: int) -> None:
    assert profile(**keys).draft_length == draft_length
    assert profile(**keys).concurrency == concurrency


def test_a_server_that_does_not_tell_of_its_progress_is_given_more_time() -> None:
    foreign = {"command": ["serve", "{port}"]}
    assert profile().stall_timeout == 120
    assert profile(**foreign).stall_timeout == 600
    assert profile(**foreign, health={"stall_timeout": 30}).stall_timeout == 30


# --- finding one --------------------------------------------------------------------------------------------

FAST = profile(name="qwen-fast", aliases=["quick"])
MAX = profile(name="qwen-max")
QWEN = profile(name="qwen")
ALL = ProfileSet({p.name: p for p in (QWEN, FAST, MAX)}, {"terse": "Be terse."})


@pytest.mark.parametrize(
    ("word", "found"),
    [("qwen-fast", FAST), ("quick", FAST), ("fast", FAST), ("max", MAX), ("qwen", QWEN)],
)
def test_a_word_finds_the_profile_it_names_or_is_an_unambiguous_part_of(word: str, found: Profile) -> None:
    assert find_profile(ALL, word) is found


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("qwen-", "'qwen-' fits several profiles; there are: qwen-fast, qwen-max"),
        ("llama", "'llama' fits no profile; there are: qwen, qwen-fast, qwen-max"),
        ("qui", "'qui' fits no profile; there are: qwen, qwen-fast, qwen-max"),
    ],
)
def test_a_word_that_names_no_single_profile_is_answered_with_the_candidates(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_profile(ALL, word)
    assert str(caught.value) == message


def test_words_select_their_profiles_in_the_order_of_names_and_keep_the_prompts() -> None:
    chosen = select(ALL, ["max", "quick", "qwen-max"])
    assert list(chosen.profiles.items()) == [("qwen-fast", FAST), ("qwen-max", MAX)]
    assert chosen.prompts == ALL.prompts
    assert select(ALL, []) is ALL
    with pytest.raises(ConfigError, match="'llama' fits no profile"):
        select(ALL, ["max", "llama"])


def test_the_prompt_of_a_profile_is_its_own_or_none() -> None:
    assert ALL.prompt_of(profile(system_prompt="terse")) == "Be terse."
    assert ALL.prompt_of(profile()) == ""


def test_what_a_profile_loads_is_its_models_and_its_adapter() -> None:
    assert profile().models == profile().files == ("org/target",)
    drafting = profile(draft_model="org/draft", adapter_path="/adapter")
    assert drafting.models == ("org/target", "org/draft")
    assert drafting.files == ("org/target", "org/draft", "/adapter")
    assert profile(command=["serve", "{port}"]).files == ()  # nobody here knows what it loads
