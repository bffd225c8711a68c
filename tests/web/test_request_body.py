"""Forwarding: what a client may send, and what a worker gets of it."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from draftd.errors import RequestError
from draftd.profiles import Profile
from draftd.protocol import AUTO_DRAFT, DRAFT_HEADER, DRAFTERS_HEADER
from draftd.web.dialects import fields as tables
from draftd.web.request_body import Endpoint, Forward, prepare
from tests.web.given import junk, profile, refused

HELLO = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}, "x": 1}
CHAT: Endpoint = "chat.completions"
TEXT: Endpoint = "completions"
ENDPOINTS: list[Endpoint] = [CHAT, TEXT]
TEXT_FIELDS = tables.TEXT.rows
PLAIN = profile()
DRAFTING = profile(draft_model="org/draft")
AUTO = profile(draft_model="org/draft", num_draft_tokens="auto", max_draft_tokens=6)
FOREIGN = profile(command=["serve", "{port}"])


def forward(
    body: dict[str, Any], endpoint: Endpoint = CHAT, to: Profile = PLAIN, prompt: str = ""
) -> Forward:
    """A request that is complete except for `body`."""
    least = {"messages": [HELLO]} if endpoint == CHAT else {"prompt": "hello"}
    return prepare({**least, **body}, endpoint, to, prompt, "default_model", "asked-for")


def sent(
    body: dict[str, Any], endpoint: Endpoint = CHAT, to: Profile = PLAIN, prompt: str = ""
) -> dict[str, Any]:
    """What the worker gets."""
    fields: dict[str, Any] = json.loads(forward(body, endpoint, to, prompt).payload)
    return fields


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
    ("tool", "param"),
    [
        (5, "tools[0]"),
        (None, "tools[0]"),
        ({}, "tools[0]"),
        ({"type": "function"}, "tools[0]"),
        ({"type": "function", "function": {}}, "tools[0]"),
        ({"type": "function", "function": {"name": ""}}, "tools[0].function.name"),
        ({"type": "function", "function": {"name": "f", "parameters": []}}, "tools[0].function.parameters"),
        ({"type": "function", "function": {"name": "f", "strict": "x"}}, "tools[0].function.strict"),
        ({"type": "custom", "custom": {"name": "f"}}, "tools[0].type"),
        ({"function": {"name": "f"}, "custom": {"name": "f"}}, "tools[0].custom"),
    ],
)
def test_a_tool_that_cannot_be_offered_is_refused_by_place(tool: object, param: str) -> None:
    with refused(400, param=param):
        forward({"tools": [tool]})


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


@pytest.mark.fault(171)
@pytest.mark.parametrize("kind", [[], {}, ["text"], {"type": "text"}, 5, None])
@pytest.mark.parametrize("to", [PLAIN, FOREIGN], ids=["ours", "a command's"])
def test_a_part_whose_kind_is_of_the_wrong_type_is_refused(kind: object, to: Profile) -> None:
    parts = [{"type": kind, "text": "hi"}]
    with refused(400, param="messages[0].content", says="only text parts"):
        forward({"messages": [{"role": "system", "content": parts}]}, CHAT, to)


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


@pytest.mark.fault(59)
def test_of_tools_that_may_be_called_the_model_is_told_only_those() -> None:
    f, g = ({"type": "function", "function": {"name": name}} for name in "fg")

    def told(choice: object) -> object:
        return sent({"tools": [f, g], "tool_choice": choice}).get("tools")

    def allowed(mode: str, *tools: object) -> dict[str, object]:
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}

    assert (
        told("auto") == told("required") == told(allowed("required", f)) == [f, g]
    )  # what is required is enforced
    assert told(allowed("auto", g)) == [g]
    assert told(allowed("auto")) is None
    assert told("none") is None


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


@pytest.mark.parametrize("length", [0, 1, 64])
def test_the_draft_length_is_forwarded_only_to_a_worker_that_drafts(length: int) -> None:
    assert sent({"num_draft_tokens": length}, to=DRAFTING)["num_draft_tokens"] == length
    assert "num_draft_tokens" not in sent({"num_draft_tokens": length}, to=PLAIN)


@pytest.mark.parametrize(
    ("profile", "asked", "longest", "auto"),
    [
        (AUTO, {}, 6, True),
        (AUTO, {"temperature": 0.7}, 6, True),
        (AUTO, {"num_draft_tokens": 3}, 3, False),
        (AUTO, {"seed": 1, "temperature": 0.7}, 6, True),  # the engine gives the same text for the same seed
        (AUTO, {"seed": 1, "temperature": 0}, 6, True),
        (DRAFTING, {"num_draft_tokens": "auto"}, 8, True),
        (DRAFTING, {"num_draft_tokens": "auto", "seed": 1, "temperature": 1}, 8, True),
        (PLAIN, {"num_draft_tokens": "auto"}, None, False),
    ],
)
def test_a_draft_length_that_tunes_itself_is_told_as_the_longest(
    profile: Profile, asked: dict[str, Any], longest: int | None, auto: bool
) -> None:
    made = forward(asked, to=profile)
    assert json.loads(made.payload).get("num_draft_tokens") == longest
    assert made.headers.get(DRAFT_HEADER) == (AUTO_DRAFT if auto else None)


@pytest.mark.parametrize(
    ("profile", "asked", "told"),
    [
        (DRAFTING, {}, None),
        (DRAFTING, {"drafters": None}, None),
        (DRAFTING, {"drafters": ["model", "lookup"]}, "model,lookup"),
        (DRAFTING, {"drafters": ["lookup"]}, "lookup"),
        (DRAFTING, {"drafters": []}, ""),
        (DRAFTING.model_copy(update={"drafters": ("model",)}), {}, "model"),
        (PLAIN, {}, None),
        (PLAIN, {"drafters": ["lookup"]}, "lookup"),
        (PLAIN.model_copy(update={"drafters": ("lookup",)}), {}, "lookup"),
        (PLAIN.model_copy(update={"drafters": ("lookup",)}), {"drafters": []}, ""),
        (PLAIN.model_copy(update={"drafters": ("lookup",)}), {"num_draft_tokens": 0}, ""),
        (PLAIN.model_copy(update={"drafters": ("lookup",)}), {"num_draft_tokens": 5}, "lookup"),
        (PLAIN, {"drafters": ["lookup"], "num_draft_tokens": 0}, ""),
        (PLAIN, {"num_draft_tokens": 0}, None),
    ],
)
def test_the_engine_is_told_what_may_draft_if_somebody_says_so(
    profile: Profile, asked: dict[str, Any], told: str | None
) -> None:
    made = forward(asked, to=profile)
    assert made.headers.get(DRAFTERS_HEADER) == told
    assert "drafters" not in json.loads(made.payload)


def test_who_drafted_what_is_told_by_our_engine_alone() -> None:
    assert sent({"return_drafters": True})["return_drafters"] is True
    assert "return_drafters" not in sent({"return_drafters": False}, to=FOREIGN)
    with refused(400, param="return_drafters", says="does not say what it drafted"):
        forward({"return_drafters": True}, to=FOREIGN)
    with refused(400, param="return_drafters", says="belongs to /v1/chat/completions"):
        forward({"return_drafters": True}, TEXT)


@pytest.mark.parametrize(
    ("profile", "drafters", "param"),
    [
        (PLAIN, ["model"], "drafters"),
        (DRAFTING, ["lookup", "eagle"], "drafters[1]"),
        (DRAFTING, "model", "drafters"),
        (FOREIGN, ["lookup"], "drafters"),
    ],
)
def test_drafters_that_there_are_not_are_refused(profile: Profile, drafters: Any, param: str) -> None:
    with refused(400, param=param):
        forward({"drafters": drafters}, to=profile)


@pytest.mark.parametrize("asked", [{}, {"num_draft_tokens": None}])
def test_a_request_that_names_no_draft_length_gets_the_profile_s(asked: dict[str, Any]) -> None:
    assert sent(asked, to=DRAFTING)["num_draft_tokens"] == DRAFTING.draft_length
    assert "num_draft_tokens" not in sent(asked, to=PLAIN)
    assert "num_draft_tokens" not in sent(asked, to=FOREIGN)


# --- defaults -----------------------------------------------------------------------------------------------


DEFAULTS = {"temperature": 0.5, "max_tokens": 100, "stop": ["END"], "chat_template_kwargs": {"a": 1}}


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


# --- prompts and messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["hello", ["hello"]])
def test_a_text_alone_or_in_a_list_is_a_prompt(prompt: object) -> None:
    assert sent({"prompt": prompt}, TEXT)["prompt"] == "hello"


@pytest.mark.parametrize("prompt", [None, "", [], [""], ["a", "b"], [1, 2], [5], [["a"]], 5, {}])
def test_any_other_prompt_is_refused(prompt: object) -> None:
    with refused(400, param="prompt", says="must be a string"):
        forward({"prompt": prompt}, TEXT)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hello", "messages"),
        ({}, "messages"),
        (["hello"], "messages[0]"),
        ([None], "messages[0]"),
        ([HELLO, {"content": "a"}], "messages[1]"),
        ([{"role": 5, "content": "a"}], "messages[0]"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": {}}], "messages[0].content"),
        ([{"role": "user", "content": ["a"]}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "messages[0].content"),
        ([{"role": "assistant", "tool_calls": "x"}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": ["x"]}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": [{"function": {}}]}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": 5}}]}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": [{"custom": {"name": "f"}}]}], "messages[0].tool_calls"),
        ([{"role": "assistant", "function_call": {"name": "f"}}], "messages[0].function_call"),
        ([{"role": "assistant", "audio": {"id": "a"}}], "messages[0].audio"),
        ([{"role": "function", "name": "f", "content": "a"}], "messages[0].role"),
        ([{"role": "user", "content": "a", "name": 5}], "messages[0].name"),
    ],
)
def test_messages_of_another_shape_are_refused_by_place(messages: object, param: str) -> None:
    with refused(400, param=param):
        forward({"messages": messages})


NO_TEXTS = [
    {"type": "image_url", "image_url": {"url": "http://evil.com/a.png"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    {"type": "image", "image": "http://evil.com/a.png", "text": "a"},
    {"type": "input_image", "image_url": "http://evil.com/a.png"},
    {"type": "input_audio", "input_audio": {"data": ""}},
]


@pytest.mark.fault(35)
@pytest.mark.parametrize("part", NO_TEXTS)
def test_images_and_sound_are_refused_so_that_nothing_is_fetched(part: dict[str, Any]) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "look"}, part]}
    with refused(400, param="messages[0].content", says="only text"):
        forward({"messages": [message]})


@pytest.mark.parametrize("part", NO_TEXTS)
def test_another_server_gets_images_and_sound_as_they_are(part: dict[str, Any]) -> None:
    parts = [{"type": "text", "text": "look"}, part]
    system = {"role": "developer", "content": parts[:1]}
    to = profile(command=["serve", "{port}"], system_prompt="p", system_prompt_mode="prepend")
    texts = {"role": "user", "content": parts[:1]}
    fields = sent({"messages": [system, {"role": "user", "content": parts}, texts]}, to=to, prompt="ours")
    assert fields["messages"] == [
        {"role": "system", "content": "ours\n\nlook"},
        {"role": "user", "content": parts},
        {"role": "user", "content": "look"},
    ]
    with refused(400, param="messages[0].content", says="only text"):
        forward({"messages": [{"role": "system", "content": parts}]}, to=to)


@pytest.mark.parametrize(
    ("message", "changed"),
    [
        ({"role": "user", "content": "a"}, {}),
        ({"role": "user", "content": None}, {"content": ""}),
        ({"role": "assistant"}, {"content": ""}),
        ({"role": "user", "content": []}, {"content": ""}),
        ({"role": "user", "content": [{"type": "text", "text": "a"}]}, {"content": "a"}),
        (
            {
                "role": "user",
                "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b", "x": 1}],
            },
            {"content": "a b"},
        ),
        ({"role": "developer", "content": "a"}, {"role": "system"}),
        ({"role": "tool", "content": "a", "tool_call_id": "1"}, {}),
        ({"role": "assistant", "content": "a", "tool_calls": []}, {}),
        ({"role": "user", "content": "a", "name": "Ann", "reasoning_content": "b"}, {}),
    ],
)
def test_messages_reach_the_worker_as_plain_text(message: dict[str, Any], changed: dict[str, Any]) -> None:
    assert sent({"messages": [message, HELLO]})["messages"] == [{**message, **changed}, HELLO]


def test_an_answer_comes_back_in_the_next_request_as_the_package_writes_it() -> None:
    nulls = dict.fromkeys(["refusal", "annotations", "audio", "function_call", "tool_calls"])
    message = {"role": "assistant", "content": "a", **nulls}
    assert sent({"messages": [message]})["messages"] == [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize("said", [{"refusal": "no"}, {"content": [{"type": "refusal", "refusal": "no"}]}])
def test_a_refusal_is_what_the_model_said(said: dict[str, Any]) -> None:
    messages = sent({"messages": [{"role": "assistant", **said}]})["messages"]
    assert messages == [{"role": "assistant", "content": "no"}]


@pytest.mark.parametrize(
    ("arguments", "parsed"),
    [
        ('{"a": 1}', {"a": 1}),
        ("{}", {}),
        ("", {}),
        (None, {}),
        ({"a": 1}, {"a": 1}),
        ("rm -rf {", "rm -rf {"),
        ("[" * 100_000, "[" * 100_000),
        ('{"a": ' + "9" * 5000 + "}", '{"a": ' + "9" * 5000 + "}"),
    ],
)
def test_arguments_of_past_calls_are_always_json_for_the_worker(arguments: object, parsed: object) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "run", "arguments": arguments}}
    (message,) = sent({"messages": [{"role": "assistant", "tool_calls": [call]}]})["messages"]
    (got,) = message["tool_calls"]
    assert json.loads(got["function"].pop("arguments")) == parsed
    assert got == {"id": "1", "type": "function", "function": {"name": "run"}}


def test_a_past_call_without_arguments_gets_none() -> None:
    (message,) = sent({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]})[
        "messages"
    ]
    assert message["tool_calls"] == [{"function": {"name": "f", "arguments": "{}"}}]


OURS = {"role": "system", "content": "ours"}
THEIRS = {"role": "system", "content": "theirs"}
LATER = {"role": "system", "content": "later"}
BOTH = {"role": "system", "content": "ours\n\ntheirs"}
ALL = {"role": "system", "content": "ours\n\ntheirs\n\nlater"}


@pytest.mark.parametrize(
    ("mode", "messages", "expected"),
    [
        ("default", [HELLO], [OURS, HELLO]),
        ("default", [THEIRS, HELLO], [THEIRS, HELLO]),
        ("default", [THEIRS, HELLO, LATER], [THEIRS, HELLO, LATER]),
        ("prepend", [HELLO], [OURS, HELLO]),
        ("prepend", [THEIRS, HELLO], [BOTH, HELLO]),
        ("prepend", [THEIRS, HELLO, LATER], [ALL, HELLO]),
        ("prepend", [{**THEIRS, "role": "developer"}, HELLO], [BOTH, HELLO]),
        ("prepend", [{**THEIRS, "content": [{"type": "text", "text": "theirs"}]}, HELLO], [BOTH, HELLO]),
        ("replace", [HELLO], [OURS, HELLO]),
        ("replace", [THEIRS, HELLO, LATER], [OURS, HELLO]),
        ("off", [HELLO], [HELLO]),
        ("off", [THEIRS, HELLO], [THEIRS, HELLO]),
    ],
)
def test_system_prompts_meet_by_mode(mode: str, messages: list[object], expected: list[object]) -> None:
    to = profile(system_prompt="helper", system_prompt_mode=mode)
    assert sent({"messages": messages}, to=to, prompt="ours")["messages"] == expected
    assert (
        sent({"messages": messages}, to=to, prompt="")["messages"] == sent({"messages": messages})["messages"]
    )


def test_a_text_completion_gets_no_system_prompt() -> None:
    fields = sent({}, TEXT, profile(system_prompt="helper"), prompt="ours")
    assert fields["prompt"] == "hello"
    assert "messages" not in fields


# --- what no JSON can carry ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "says"),
    [("\ud800", "surrogate"), ({"\udc00": 1}, "surrogate")],
)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_what_utf8_cannot_carry_is_refused(endpoint: Endpoint, value: object, says: str) -> None:
    with refused(400, says=says):
        forward({"x": value}, endpoint, FOREIGN)


# --- mlx_lm.server's own view -------------------------------------------------------------------------------

text = st.text(max_size=5)
words = st.text(min_size=1, max_size=5)
fields_of_openai: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(0, 2) | st.integers(0, 2),
    "top_p": st.floats(0, 1) | st.integers(0, 1),
    "max_tokens": st.integers(1, 2**40),
    "max_completion_tokens": st.integers(1, 2**40),
    "presence_penalty": st.floats(-2, 2) | st.integers(-2, 2),
    "frequency_penalty": st.floats(-2, 2) | st.integers(-2, 2),
    "seed": st.integers(-(2**63), 2**63),
    "stop": words | st.lists(words, max_size=4),
    "n": st.just(1),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans()}),
    "logprobs": st.booleans(),
    "user": text,
}
fields_of_chat: dict[str, st.SearchStrategy[Any]] = {
    "tools": st.lists(st.just({"type": "function", "function": {"name": "f", "parameters": {}}}), max_size=2),
    "tool_choice": st.sampled_from(["auto", "none"]),
    "parallel_tool_calls": st.booleans(),
    "response_format": st.just({"type": "text"}),
    "chat_template_kwargs": st.dictionaries(st.just("enable_thinking"), st.booleans()),
}
fields_of_mlx: dict[str, st.SearchStrategy[Any]] = {
    "top_k": st.integers(0, 10**12),
    "min_p": st.floats(0, 1) | st.integers(0, 1),
    "num_draft_tokens": st.integers(0, 64),
    "repetition_penalty": st.floats(0, 3) | st.integers(0, 3),
    "repetition_context_size": st.integers(0, 100),
    "xtc_probability": st.floats(0, 1) | st.integers(0, 1),
    "xtc_threshold": st.floats(0, 0.5) | st.just(0),
}
parts = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": text}), max_size=2)
past_calls = st.lists(
    text.map(
        lambda arguments: {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    ),
    max_size=2,
)
messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
            "content": text | parts,
        },
        optional={"tool_calls": past_calls | st.none(), "name": text},
    ),
    min_size=1,
    max_size=3,
)
profiles = st.sampled_from([PLAIN, DRAFTING, profile(defaults=DEFAULTS)])


def bodies(
    required: dict[str, st.SearchStrategy[Any]], *also: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies with any of the fields that exist; `also` are further values that any optional field may have."""
    known = {**fields_of_openai, **fields_of_mlx, **(fields_of_chat if "messages" in required else {})}
    return st.fixed_dictionaries(required, optional={name: st.one_of(v, *also) for name, v in known.items()})


def accept(made: Forward) -> None:
    """mlx_lm.server takes the payload, and nothing in it ends the thread that generates."""
    from tests.web.mlx_handler import taken_by_mlx

    taken = taken_by_mlx(made.payload, made.endpoint)
    assert taken.refusal == ""
    assert taken.request is not None
    assert isinstance(taken.stop_words, list)
    assert all(isinstance(word, str) for word in taken.stop_words)
    fields = json.loads(made.payload)
    assert 0 <= fields.get("seed", 0) < 2**64
    assert fields.get("top_k", 0) <= 1000
    assert fields.get("xtc_threshold", 0.0) <= 0.5
    assert "logit_bias" not in fields


@pytest.mark.real
@settings(deadline=None)
@given(bodies({"messages": messages}, st.none()), profiles)
def test_whatever_openai_allows_in_a_chat_is_taken(body: dict[str, Any], to: Profile) -> None:
    accept(prepare(body, CHAT, to, "ours", "default_model", "asked-for"))


@pytest.mark.real
@settings(deadline=None)
@given(
    bodies({"prompt": st.text(min_size=1, max_size=5)}, st.none()), st.none() | st.integers(0, 5), profiles
)
def test_whatever_openai_allows_in_a_completion_is_taken(
    body: dict[str, Any], logprobs: int | None, to: Profile
) -> None:
    accept(prepare({**body, "logprobs": logprobs}, TEXT, to, "ours", "default_model", "asked-for"))


@settings(deadline=None)
@given(
    bodies({"messages": messages | junk, "prompt": text | junk}, junk),
    st.dictionaries(text, junk, max_size=2),
    st.sampled_from(ENDPOINTS),
    profiles,
)
@example({"messages": [HELLO], "xtc_probability": 10**400}, {}, CHAT, PLAIN)
def test_any_other_body_is_taken_or_refused_here(
    body: dict[str, Any], more: dict[str, Any], endpoint: Endpoint, to: Profile
) -> None:
    try:
        made = prepare({**body, **more}, endpoint, to, "ours", "default_model", "asked-for")
    except RequestError:
        return
    accept(made)
