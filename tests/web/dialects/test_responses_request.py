"""A request in the form of OpenAI's responses becomes one for a chat, and the answer repeats what it says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from draftd.errors import RequestError
from draftd.protocol import GRAMMARS_FIELD
from draftd.web.dialects.responses_answer import ResponseAnswer
from draftd.web.dialects.responses_request import chat_request, repeated
from draftd.web.request_body import checked_messages, prepare
from tests.web.given import junk, profile

HI = {"role": "user", "content": "Hi"}
CALL = {"type": "function_call", "call_id": "t1", "name": "f", "arguments": '{"a": 1}'}
CALLED = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
OUTPUT = {"type": "function_call_output", "call_id": "t1", "output": "done"}
TOLD = {"role": "tool", "tool_call_id": "t1", "content": "done"}
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
PICTURE = {"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]}
PATCH = {"type": "custom", "name": "patch", "description": "d", "format": GRAMMAR}


def made(**fields: Any) -> dict[str, Any]:
    return chat_request({"input": "Hi", **fields})


def messages(*items: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made(input=list(items))["messages"]
    return found


def said(text: str, role: str = "assistant", kind: str = "output_text") -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({"model": "m", "temperature": 1, "top_p": 0.5, "parallel_tool_calls": False, "stream": True}, None),
        ({"max_output_tokens": 5}, {"max_tokens": 5}),
        (
            {"tools": [{"type": "function", **FUNCTION}]},
            {"tools": [{"type": "function", "function": FUNCTION}]},
        ),
        ({"tools": [{"type": "web_search"}, {"type": "namespace", "name": "n", "tools": []}]}, {}),
        ({"tool_choice": "auto"}, {}),
        ({"tool_choice": "required"}, None),
        (
            {"tool_choice": {"type": "custom", "name": "f"}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
                }
            },
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "required",
                        "tools": [{"type": "function", "function": {"name": "f"}}],
                    },
                }
            },
        ),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"text": {"format": {"type": "text"}, "verbosity": "medium"}}, {}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {}, "strict": True},
                }
            },
        ),
        ({"store": False, "include": ["reasoning.encrypted_content"], "client_metadata": {"a": "b"}}, {}),
    ],
)
def test_fields_have_their_names_in_a_chat(asked: dict[str, Any], got: dict[str, Any] | None) -> None:
    assert made(**asked) == {**made(), **(asked if got is None else got)}


def test_a_custom_tool_is_a_function_of_one_text_that_is_told_its_grammar() -> None:
    chat = made(tools=[PATCH, {"type": "custom", "name": "free"}])
    function = chat["tools"][0]["function"]
    assert function["name"] == "patch"
    assert chat[GRAMMARS_FIELD] == {"patch": {"syntax": "lark", "definition": "start: /.+/"}}
    assert function["description"] == "d\n\nThe input follows this grammar:\nstart: /.+/"
    assert function["parameters"]["required"] == ["input"]


@pytest.mark.parametrize(
    ("items", "got"),
    [
        ([said("a", "user", "input_text")], [{"role": "user", "content": "a"}]),
        (
            [said("c", "developer", "input_text"), HI, {"role": "system", "content": "d"}],
            [{"role": "system", "content": "c\n\nd"}, HI],
        ),
        (
            [
                HI,
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                said("a"),
                CALL,
                {**CALL, "call_id": "t2"},
                OUTPUT,
                {
                    "type": "custom_tool_call_output",
                    "call_id": "t2",
                    "output": [{"type": "input_text", "text": "x"}],
                },
                said("b"),
                said("c"),
            ],
            [
                HI,
                {
                    "role": "assistant",
                    "content": "a",
                    "reasoning_content": "hm",
                    "tool_calls": [CALLED, {**CALLED, "id": "t2"}],
                },
                TOLD,
                {"role": "tool", "tool_call_id": "t2", "content": "x"},
                {"role": "assistant", "content": "b"},
                {"role": "assistant", "content": "c"},
            ],
        ),
        (
            [HI, {"type": "reasoning", "summary": [], "encrypted_content": "x"}, {"type": "web_search_call"}],
            [HI],
        ),
        (
            [PICTURE],
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}],
        ),
    ],
)
def test_items_become_messages(items: list[dict[str, Any]], got: list[dict[str, Any]]) -> None:
    assert messages(*items) == got


def test_instructions_come_before_all_other_system_text() -> None:
    chat = made(instructions="a", input=[{"role": "developer", "content": "b"}, HI])
    assert chat["messages"] == [{"role": "system", "content": "a\n\nb"}, HI]


texts = st.text(min_size=1, max_size=5)


@given(texts | st.none(), texts | st.none(), st.lists(texts, max_size=2), st.lists(texts, max_size=2))
def test_what_a_model_said_goes_back_to_it_as_it_was(
    thoughts: str | None, words: str | None, functions: list[str], patches: list[str]
) -> None:
    """To items and back: the chat message is the one that the items were made from."""
    message: dict[str, Any] = {"role": "assistant", "content": words or ""}
    if thoughts:
        message["reasoning_content"] = thoughts
    names = [("f", one) for one in functions] + [("patch", one) for one in patches]
    sent = made(input=[{**CALL, "arguments": text} if name == "f" else
                       {"type": "custom_tool_call", "call_id": "t1", "name": name, "input": text}
                       for name, text in names] or "x")  # fmt: skip
    if names:
        message["tool_calls"] = [
            {**call, "id": f"t{place}"} for place, call in enumerate(sent["messages"][0]["tool_calls"])
        ]
    answer = ResponseAnswer("5", 1, {"model": "m", **repeated({"tools": [PATCH]})})
    calls = [{**call, "index": place} for place, call in enumerate(message.get("tool_calls", []))]
    chunk = {"choices": [{"delta": {**message, "tool_calls": calls}, "finish_reason": "stop"}]}
    for _ in (*answer.take(chunk), *answer.finish()):
        pass
    expected = [HI, message] if len(message) > 2 or words else [HI]
    assert messages(HI, *answer.response["output"]) == expected


def test_the_answer_repeats_what_the_model_was_told() -> None:
    asked = {"input": "Hi", "tools": [PATCH, {"type": "web_search"}], "metadata": {"a": "b"}, "user": None}
    assert repeated(asked) == {
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [PATCH],
        "truncation": "disabled",
    }


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ["Hi"]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        ({"input": [{**CALL, "call_id": None}]}, "input[0].call_id"),
        ({"input": [{**OUTPUT, "output": 5}]}, "input[0].output"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"name": "f"}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search"}, {"type": ["function"]}]}, "tools[1].type"),
        ({"tools": [{**PATCH, "description": 5}]}, "tools[0].description"),
        ({"tools": [{**PATCH, "format": {"type": "xml"}}]}, "tools[0].format"),
        ({"tools": [{**PATCH, "format": [1]}]}, "tools[0].format"),
        ({"tools": [{**PATCH, "format": {**GRAMMAR, "syntax": "bnf"}}]}, "tools[0].format"),
        ({"tools": [{**PATCH, "format": {**GRAMMAR, "definition": 5}}]}, "tools[0].format.definition"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"tools": [{"type": "mcp", "server_label": "a", "server_url": "https://a"}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search"}, {"type": "file_search"}]}, "tools[1].type"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"include": ["everything"]}, "include[0]"),
        ({"max_tokens": 5}, "max_tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_place(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        made(**asked)
    assert (caught.value.status, caught.value.param) == (400, param)


names = ("input", "instructions", "tools", "tool_choice", "text", "reasoning", "include", "stream_options")
items = st.lists(
    st.dictionaries(
        st.sampled_from(["type", "role", "content", "summary", "output", "input", "name", "call_id"]), junk
    )
    | st.sampled_from([HI, CALL, {**CALL, "arguments": "{"}, OUTPUT, PATCH, PICTURE, said("a")]),
    max_size=3,
)


@given(st.dictionaries(st.sampled_from(names), junk | items), items)
@example({}, [HI, {**CALL, "arguments": "{"}, {**CALL, "arguments": ""}])
@example({}, [PICTURE])
def test_any_body_is_translated_or_refused(body: dict[str, Any], given_items: list[dict[str, Any]]) -> None:
    asked = {"input": given_items, **body}
    try:
        chat = chat_request(asked)
        made = prepare(chat, "chat.completions", profile(), "", "default_model", "m", translated=True)
    except RequestError:
        return
    assert made.endpoint == "chat.completions"
    assert checked_messages(chat, foreign=True) == chat["messages"]  # it would not have changed them
    assert repeated(asked)["tool_choice"]
