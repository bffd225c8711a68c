"""The refusal of an image names its place in the client's own request, whatever the dialect makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from draftd.profiles import ProfileSet
from draftd.web.router import Dialect, Refused, RoutingTable, route
from tests.web.given import profile

TABLE = RoutingTable(
    ProfileSet({"ours": profile("ours"), "other": profile("other", command=["server", "{port}"])}), "ours"
)
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
CALL = {"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "f", "input": {}}]}
RESULT = {"type": "tool_result", "tool_use_id": "x", "content": "done"}
INPUT_IMAGE = {"type": "input_image", "image_url": "data:x"}


def routed(dialect: Dialect, **body: Any) -> object:
    return route(
        json.dumps({"max_tokens": 5} | body if dialect == "messages" else body).encode(), dialect, TABLE
    )


def said(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


@pytest.mark.parametrize(
    ("dialect", "body", "place"),
    [
        ("messages", {"messages": [said(IMAGE)]}, "messages[0].content[0]"),
        (
            "messages",  # the system text is a message of the chat, and so is each result of a tool
            {"system": "Be brief.", "messages": [said(), CALL, said(RESULT, RESULT), said(RESULT, IMAGE)]},
            "messages[3].content[1]",
        ),
        (
            "messages",
            {"messages": [CALL, said(RESULT | {"content": [{"type": "text", "text": "a"}, IMAGE]})]},
            "messages[1].content[0].content[1]",
        ),
        ("count_tokens", {"messages": [said(IMAGE)]}, "messages[0].content[0]"),
        (
            "responses",  # the instructions are a message of the chat
            {"instructions": "Be brief.", "input": [said({"type": "input_text", "text": "a"}, INPUT_IMAGE)]},
            "input[0].content[1]",
        ),
        (
            "responses",
            {"input": [{"type": "function_call_output", "call_id": "x", "output": [INPUT_IMAGE]}]},
            "input[0].output[0]",
        ),
    ],
)
def test_the_refusal_names_the_place_in_the_client_s_request(
    dialect: Dialect, body: dict[str, Any], place: str
) -> None:
    found = routed(dialect, **body)
    assert isinstance(found, Refused)
    assert (found.error.status, found.error.param) == (400, place)
    assert str(found.error) == f"{place}: only text is supported, no images or audio"
    assert not isinstance(routed(dialect, model="other", **body), Refused)


def test_what_only_looks_like_a_picture_is_none() -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"content": [deep]}
    block = {"type": "text", "text": "a", "content": [deep], "output": {"type": ["image"]}}
    assert not isinstance(routed("messages", messages=[said(block)]), Refused)
    assert not isinstance(routed("messages", messages=[{"role": "user", "content": "image"}]), Refused)
