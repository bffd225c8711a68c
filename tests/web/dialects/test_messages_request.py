"""A request in Anthropic's form becomes one for a chat, in which everything stands where it stood."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from draftd.errors import RequestError
from draftd.web.dialects.messages_request import chat_request, count_request
from draftd.web.request_body import checked_messages, prepare
from tests.web.given import junk, profile

HI = {"role": "user", "content": "Hi"}
CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
CALLED = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "done"}
IMAGE = {"type": "image", "source": {"type": "url", "url": "http://x/a.png"}}
TOOL = {
    "name": "f",
    "description": "d",
    "input_schema": {"type": "object"},
    "cache_control": {"type": "ephemeral"},
}
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def made(**fields: Any) -> dict[str, Any]:
    return chat_request({"messages": [HI], **fields})


def messages(*sent: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made(messages=list(sent))["messages"]
    return found


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({"model": "m", "max_tokens": 5, "temperature": 1, "top_k": 5, "top_p": 0.5}, None),
        ({"stop_sequences": ["a"]}, {"stop": ["a"]}),
        ({"tools": [TOOL]}, {"tools": [{"type": "function", "function": FUNCTION}]}),
        ({"tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        (
            {"tool_choice": {"type": "tool", "name": "f"}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
        ({"thinking": {"type": "disabled"}}, {"chat_template_kwargs": {"enable_thinking": False}}),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}},
            {"chat_template_kwargs": {"enable_thinking": True}},
        ),
        ({"output_config": {"effort": "high"}, "metadata": {"user_id": "x"}}, {}),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}, {}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
    ],
)
def test_fields_have_their_names_in_a_chat(asked: dict[str, Any], got: dict[str, Any] | None) -> None:
    assert made(**asked) == {**made(), **(asked if got is None else got)}


def test_the_answer_comes_as_the_client_wants_it_with_its_usage() -> None:
    assert made() == {"messages": [HI], "stream_options": {"include_usage": True}}
    assert made(stream=True)["stream"] is True


BILLING = "x-anthropic-billing-header: cc_version=2.1; cch=1a2b;"


@pytest.mark.parametrize(
    ("system", "first"),
    [
        ("You help.", "You help."),
        ([text("a", cache_control={"type": "ephemeral"}), text("b")], "a\n\nb"),
        ([text(BILLING), text("a")], "a"),
        (f"{BILLING}\na\nb", "a\nb"),
        ([text(BILLING)], None),
        ([], None),
        ("", None),
    ],
)
def test_the_system_text_comes_first_without_the_billing_header(system: Any, first: str | None) -> None:
    expected = [HI] if first is None else [{"role": "system", "content": first}, HI]
    assert made(system=system)["messages"] == expected


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        ([HI], [HI]),
        ([{"role": "user", "content": [text("a"), text("b")]}], [{"role": "user", "content": "a\nb"}]),
        (
            [HI, {"role": "system", "content": [text("left: 5")]}],
            [HI, {"role": "system", "content": "left: 5"}],
        ),
        (
            [{"role": "user", "content": [RESULT, text("and now?"), RESULT]}],
            [
                {"role": "tool", "tool_call_id": "t1", "content": "done"},
                {"role": "user", "content": "and now?"},
                {"role": "tool", "tool_call_id": "t1", "content": "done"},
            ],
        ),
        (
            [{"role": "user", "content": [{**RESULT, "content": [text("no")], "is_error": True}]}],
            [{"role": "tool", "tool_call_id": "t1", "content": "Error:\nno"}],
        ),
        (
            [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1"}]}],
            [{"role": "tool", "tool_call_id": "t1", "content": ""}],
        ),
        (
            [
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": ""},
                        text("Let"),
                        text(" me"),
                        CALL,
                    ],
                },
                HI,
            ],
            [
                {"role": "assistant", "content": "Let me", "reasoning_content": "hm", "tool_calls": [CALLED]},
                HI,
            ],
        ),
        (
            [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}, text("a")]}, HI],
            [{"role": "assistant", "content": "a"}, HI],
        ),
        (
            [
                {
                    "role": "user",
                    "content": [
                        text("see"),
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "AA"},
                        },
                        IMAGE,
                    ],
                }
            ],
            [
                {
                    "role": "user",
                    "content": [
                        text("see"),
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                        {"type": "image_url", "image_url": {"url": "http://x/a.png"}},
                    ],
                }
            ],
        ),
    ],
)
def test_messages_keep_their_order(sent: list[dict[str, Any]], got: list[dict[str, Any]]) -> None:
    assert messages(*sent) == got


def test_a_message_for_one_turn_is_gone_with_the_next() -> None:
    once = {"role": "system", "content": "now", "clear_at": "next_user_message"}
    assert messages(HI, once) == [HI, {"role": "system", "content": "now"}]
    assert messages(HI, once, HI) == [HI, HI]
    assert messages(HI, {"role": "system", "output_config": {"effort": "low"}}) == [HI]


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (
            {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "g"}},
            "The tool g can be used",
        ),
        (
            {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "g"}},
            "The tool g can no longer",
        ),
        (
            {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": TOOL}},
            '"name": "f"',
        ),
    ],
)
def test_what_changes_about_tools_is_told_where_it_changes(block: dict[str, Any], says: str) -> None:
    first, told = messages(HI, {"role": "system", "content": [block]})
    assert (first, told["role"]) == (HI, "system")
    assert says in told["content"]


def test_a_tool_that_was_looked_up_is_named_in_the_result() -> None:
    found = {**RESULT, "content": [{"type": "tool_reference", "tool_name": "g"}]}
    assert (
        messages({"role": "user", "content": [found]})[0]["content"] == "The tool g can be used from now on."
    )


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [text(5)]}]}, "messages[0].content[0].text"),  # type: ignore[arg-type]
        ({"messages": [HI, {"role": "assistant", "content": "I"}]}, "messages[1]"),
        (
            {"messages": [{"role": "assistant", "content": [{**CALL, "name": None}]}, HI]},
            "messages[0].content[0].name",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{**CALL, "input": [5]}]}, HI]},
            "messages[0].content[0].input",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].source"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"messages": [HI, {"role": "system", "content": [text("a"), IMAGE]}]}, "messages[1].content"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": "no"}},
            "tool_choice.disable_parallel_tool_use",
        ),
        ({"context_management": {"edit": []}}, "context_management"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_config": {"format": {"type": "grammar"}}}, "output_config.format.type"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management"),
        ({"container": "x"}, "container"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_token": 5}, "max_token"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_place(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        made(**asked)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_counting_generates_nothing() -> None:
    asked = {"model": "m", "messages": [HI], "system": "s", "tools": [TOOL]}
    assert count_request(asked) == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, HI],
        "tools": [{"type": "function", "function": FUNCTION}],
        "count_only": True,
    }
    with pytest.raises(RequestError):
        count_request({**asked, "max_tokens": 5})


names = (
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "stop_sequences",
    "context_management",
)
blocks = st.lists(
    st.dictionaries(st.sampled_from(["type", "text", "content", "tool", "source", "input", "name"]), junk)
    | st.sampled_from([text("a"), CALL, RESULT, IMAGE, {**RESULT, "content": [text("b"), IMAGE]}]),
    max_size=3,
)
turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system"]), "content": blocks | junk}
    ),
    max_size=3,
)


@given(st.dictionaries(st.sampled_from(names), junk | blocks), turns)
@example(
    {}, [{"role": "assistant", "content": [text("a"), CALL]}, {"role": "user", "content": [RESULT, IMAGE]}]
)
def test_any_body_is_translated_or_refused(body: dict[str, Any], said: list[dict[str, Any]]) -> None:
    try:
        chat = chat_request({"messages": said, **body})
        made = prepare(chat, "chat.completions", profile(), "", "default_model", "m", translated=True)
    except RequestError:
        return
    assert made.endpoint == "chat.completions"
    assert checked_messages(chat, foreign=True) == chat["messages"]  # it would not have changed them
