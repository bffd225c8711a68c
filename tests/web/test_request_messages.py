"""Prompts and messages: their shapes, what becomes of them, and where the system prompt goes."""

from typing import Any

import pytest

from draftd.profiles import Profile
from tests.web.forwarded import CHAT, FOREIGN, HELLO, PLAIN, TEXT, forward, sent
from tests.web.given import profile, refused


@pytest.mark.fault(171)
@pytest.mark.parametrize("kind", [[], {}, ["text"], {"type": "text"}, 5, None])
@pytest.mark.parametrize("to", [PLAIN, FOREIGN], ids=["ours", "a command's"])
def test_a_part_whose_kind_is_of_the_wrong_type_is_refused(kind: object, to: Profile) -> None:
    parts = [{"type": kind, "text": "hi"}]
    with refused(400, param="messages[0].content", says="only text parts"):
        forward({"messages": [{"role": "system", "content": parts}]}, CHAT, to)


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
