"""Forwarding: what a client may send, and what a worker gets of it."""

import json
from typing import Any

import pytest

from draftd.profiles import Profile
from draftd.web.dialects import fields as tables
from draftd.web.request_body import Endpoint
from tests.web.forwarded import CHAT, DEFAULTS, DRAFTING, ENDPOINTS, FOREIGN, PLAIN, TEXT, forward, sent
from tests.web.given import profile, refused

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}, "x": 1}
TEXT_FIELDS = tables.TEXT.rows


# --- how it is asked and answered ---------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("body", "stream", "wants_usage"),
    [
        ({}, False, False),
        ({"stream": None, "stream_options": None}, False, False),
        ({"stream": False}, False, False),
        ({"stream": True}, True, False),
        ({"stream": True, "stream_options": {}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True, True),
        ({"logprobs": True}, False, False),
        ({"logprobs": True, "stream_options": {}}, False, False),
        ({"logprobs": True, "stream": True}, True, False),
    ],
)
def test_answers_are_asked_for_as_streams_with_usage(
    endpoint: Endpoint, body: dict[str, Any], stream: bool, wants_usage: bool
) -> None:
    made = forward(body, endpoint)
    assert (made.endpoint, made.model) == (endpoint, "asked-for")
    assert (made.stream, made.wants_usage) == (stream, wants_usage)
    fields = json.loads(made.payload)
    assert (fields["stream"], fields["stream_options"]) == (True, {"include_usage": True})


@pytest.mark.parametrize("to", [DRAFTING, FOREIGN])
def test_the_client_cannot_make_the_worker_load_other_weights(to: Profile) -> None:
    for name in ("adapters", "draft_model"):
        with refused(400, param=name, says="the profile chooses the weights"):
            forward({name: "evil"}, to=to)
    assert sent({"model": "evil"}, to=to)["model"] == "default_model"


def test_nulls_mean_that_a_field_is_not_set() -> None:
    given_null = [
        "temperature",
        "max_tokens",
        "num_draft_tokens",
        "stop",
        "seed",
        "tools",
        "n",
        "logprobs",
        "x",
    ]
    assert sent(dict.fromkeys(given_null), to=DRAFTING) == sent({}, to=DRAFTING)


ODD = {"user": "é", "metadata": {"a": [1, None, 1.5]}, "store": False}


def test_a_worker_of_our_own_gets_only_what_it_uses() -> None:
    assert sent(ODD) == sent({})


def test_another_server_gets_what_it_may_know() -> None:
    more = {
        "grammar": "root ::= [0-9]+",
        "x": [1, None],
        "tool_choice": "required",
        "reasoning_effort": "low",
    }
    assert sent(ODD | more, to=FOREIGN) == {**sent({}, to=FOREIGN), **ODD, **more}
    assert (
        sent({"prompt": [1, 2], "echo": True}, TEXT, FOREIGN).items()
        >= {"prompt": [1, 2], "echo": True}.items()
    )


@pytest.mark.parametrize("name", ["functions", "audio", "n"])
def test_another_server_does_not_get_what_draftd_could_not_bring_back(name: str) -> None:
    with refused(400, param=name):
        forward({name: [{"name": "f"}]}, to=FOREIGN)


# --- fields -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("stream", ["true", 1, 0, [], {}]),
        ("stream_options", ["x", [], True, 5]),
        ("n", [0, 2, "1", -1, True]),
        ("temperature", ["hot", True, [], -0.1, 5.1, 10**400]),
        ("top_p", ["x", -0.1, 1.1]),
        ("min_p", ["x", -0.1, 1.1]),
        ("top_k", ["x", -2, 1.5, True]),
        ("max_tokens", ["x", 0, -1, 1.5, True]),
        ("max_completion_tokens", ["x", 0, -1, 1.5, True]),
        ("num_draft_tokens", ["x", -1, 65, 1.5, True]),
        ("seed", ["x", 1.5, True]),
        ("repetition_penalty", ["x", -1, 10**400]),
        ("repetition_context_size", ["x", -1, 1.5, 10**30]),
        ("presence_penalty", ["x", -2.1, 2.1]),
        ("presence_context_size", ["x", -1, 1.5, 10**30]),
        ("frequency_penalty", ["x", -2.1, 2.1]),
        ("frequency_context_size", ["x", -1, 1.5, 10**30]),
        ("xtc_probability", ["x", -0.1, 1.1, 10**400]),
        ("xtc_threshold", ["x", -0.1, 0.6]),
        ("logprobs", ["x", -1, 21, 1.5, []]),
        ("top_logprobs", ["x", -1, 21, 1.5]),
        ("stop", [5, {}, [5], ["a", None], "", ["a", ""], ["a"] * 17, "x" * 257, ["x" * 1_000_000]]),
        ("tools", ["x", {}]),  # and see below
        (
            "logit_bias",
            ["x", [], {"5": None}, {"5": "x"}, {"5": 101}, {"5": -1e30}, {"a": 1}, {"-1": 1}, {" 5": 1}],
        ),
        ("logit_bias", [{"05": 1}, {"5.0": 1}, {"1_0": 1}, {"٥": 1}, {"": 1}, {"9" * 5000: 1}]),
        ("chat_template_kwargs", ["x", [], 5]),
        ("parallel_tool_calls", ["x", 0, []]),
        ("user", [5, {}]),
        ("metadata", ["x", []]),
    ],
)
def test_a_field_of_the_wrong_type_or_size_is_refused_by_name(name: str, values: list[object]) -> None:
    for value in values:
        for endpoint in ENDPOINTS if name in TEXT_FIELDS else ENDPOINTS[:1]:
            with refused(400, param=name, says=f"^{name} must "):
                forward({name: value}, endpoint, DRAFTING)


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"xtc_probability": 1, "xtc_threshold": 0}, {"xtc_probability": 1.0, "xtc_threshold": 0.0}),
        ({"max_tokens": 5.0, "top_k": 3.0}, {"max_tokens": 5, "top_k": 3}),
        ({"n": 1}, {}),
        ({"n": 1.0}, {}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_completion_tokens": 5}),
        ({"max_tokens": 7, "max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"seed": -1}, {"seed": 2**64 - 1}),
        ({"seed": 2**64 + 5}, {"seed": 5}),
        ({"top_k": 10**9}, {"top_k": 1000}),
        ({"logprobs": False, "top_logprobs": 0}, {}),
        ({"logprobs": True}, {"logprobs": True, "top_logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 20}, {"logprobs": True, "top_logprobs": 20}),
        ({"logit_bias": {}}, {}),
        ({"stop": "END"}, {"stop": "END"}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"tools": [], "tool_choice": "auto"}, {"tool_choice": "auto"}),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tools": [TOOL], "tool_choice": "required"}),
        ({"tools": [TOOL], "tool_choice": "none"}, {"tool_choice": "none"}),
        ({"tools": [TOOL], "parallel_tool_calls": False}, {"tools": [TOOL], "parallel_tool_calls": False}),
        (
            {"chat_template_kwargs": {"enable_thinking": False}},
            {"chat_template_kwargs": {"enable_thinking": False}},
        ),
    ],
)
def test_what_openai_allows_is_put_as_mlx_lm_server_takes_it(
    asked: dict[str, Any], got: dict[str, Any]
) -> None:
    fields = sent(asked)
    assert {key: fields[key] for key in fields if key not in sent({}) and key != "stream_options"} == got
    assert all(type(fields[key]) is type(got[key]) for key in got)


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({"logprobs": 5}, {"logprobs": True, "top_logprobs": 5}),
        ({"logprobs": 0}, {"logprobs": True, "top_logprobs": 0}),
        ({"logprobs": 2, "top_logprobs": 5}, {"logprobs": True, "top_logprobs": 5}),
        ({"logprobs": True}, {"logprobs": True, "top_logprobs": 0}),
    ],
)
def test_only_a_text_takes_a_number_for_its_log_probabilities(
    asked: dict[str, Any], got: dict[str, Any]
) -> None:
    assert sent(asked, TEXT).items() >= got.items()
    if type(asked["logprobs"]) is int:
        with refused(400, param="logprobs", says="must be true or false"):
            sent(asked, CHAT)


def test_alternatives_are_asked_for_with_log_probabilities_or_not_at_all() -> None:
    for asked in ({"top_logprobs": 3}, {"logprobs": False, "top_logprobs": 3}):
        with refused(400, param="top_logprobs", says="needs logprobs"):
            forward(asked)


@pytest.mark.parametrize("option", ["include_obfuscation", "continuous_usage_stats"])
def test_an_option_of_a_stream_that_is_not_kept_is_refused(option: str) -> None:
    for to in (PLAIN, FOREIGN):
        with refused(400, param=f"stream_options.{option}"):
            forward({"stream": True, "stream_options": {option: True}}, to=to)
    assert sent({"stream_options": {"include_obfuscation": False}}) == sent({})


@pytest.mark.fault(59)
@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"type": "grammar"}, "response_format.type"),
        ({"type": "json_object", "shema": {}}, "response_format.shema"),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schemas": {}}},
            "response_format.json_schema.schemas",
        ),
        ({"type": "json_schema", "json_schema": {"schema": []}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"strict": 1}}, "response_format.json_schema.strict"),
    ],
)
def test_a_form_of_the_answer_that_nobody_would_keep_is_refused_by_place(wanted: object, param: str) -> None:
    with refused(400, param=param):
        forward({"response_format": wanted})
    assert sent({"response_format": wanted}, to=FOREIGN)["response_format"] == wanted


def test_a_bias_on_tokens_reaches_only_an_engine_that_checks_it() -> None:
    fields = sent({"logit_bias": {"5": 1}})
    assert fields["draftd_logit_bias"] == {"5": 1}
    assert "logit_bias" not in fields


def test_another_server_gets_what_only_mlx_lm_server_cannot_take() -> None:
    asked = {"logit_bias": {"5": 1.0}, "top_k": 10**9, "seed": -1, "logprobs": 5, "top_logprobs": 20}
    assert sent(asked, TEXT, FOREIGN).items() >= asked.items()


@pytest.mark.parametrize(
    "name", ["tokenize", "chat_template", "return_dict", "tools", "max_length", "messages", "conversations"]
)
def test_template_arguments_that_change_more_than_the_prompt_are_refused(name: str) -> None:
    with refused(400, param="chat_template_kwargs", says=f"must not hold {name}"):
        forward({"chat_template_kwargs": {"enable_thinking": True, name: False}})


@pytest.mark.parametrize(
    ("asked", "changed"),
    [
        ({}, {}),
        ({"temperature": None, "stop": None}, {}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"max_tokens": 7}, {"max_tokens": 7}),
        ({"stop": []}, {"stop": []}),
        ({"chat_template_kwargs": {}}, {"chat_template_kwargs": {}}),
    ],
)
def test_defaults_fill_in_and_never_override(asked: dict[str, Any], changed: dict[str, Any]) -> None:
    fields = sent(asked, to=profile(defaults=DEFAULTS))
    assert fields.items() >= {**DEFAULTS, **changed}.items()


def test_a_limit_under_its_newer_name_beats_the_default_one() -> None:
    fields = sent({"max_completion_tokens": 7}, to=profile(defaults=DEFAULTS))
    assert fields["max_completion_tokens"] == 7
    assert "max_tokens" not in fields


def test_defaults_are_put_as_mlx_lm_server_takes_them() -> None:
    assert (
        sent({}, to=profile(defaults={"seed": -1, "top_k": 10**9})).items()
        >= {
            "seed": 2**64 - 1,
            "top_k": 1000,
        }.items()
    )


# --- what no JSON can carry ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "says"),
    [("\ud800", "surrogate"), ({"\udc00": 1}, "surrogate")],
)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_what_utf8_cannot_carry_is_refused(endpoint: Endpoint, value: object, says: str) -> None:
    with refused(400, says=says):
        forward({"x": value}, endpoint, FOREIGN)
