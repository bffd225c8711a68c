"""A body becomes a request for the worker of the profile that it names, or a refusal; too many values are one."""

import json
from typing import Any

import pytest

from draftd.errors import RequestError
from draftd.profiles import ProfileSet
from draftd.web.request_body import prepare
from draftd.web.routed_request import MAX_VALUES, Refused, Routed, check_size, route
from draftd.web.router import RoutingTable
from tests.harness import chat
from tests.web.given import profile, refused

SMALL = profile("small", system_prompt="house", aliases=["tiny"])
OTHER = profile("other", command=["server", "{port}"])
TABLE = RoutingTable(ProfileSet({"small": SMALL, "other": OTHER}, {"house": "Be brief."}), "small")


@pytest.mark.parametrize(
    ("asked", "name", "upstream", "client_model"),
    [
        ({"model": "small"}, "small", "default_model", "small"),
        ({"model": "tiny"}, "small", "default_model", "tiny"),
        ({}, "small", "default_model", "small"),
        ({"model": "other"}, "other", "org/model", "other"),
    ],
)
def test_a_body_is_made_into_the_request_of_the_profile_that_it_names(
    asked: dict[str, Any], name: str, upstream: str, client_model: str
) -> None:
    body = chat("hi", **asked)
    prompt = "Be brief." if name == "small" else ""
    expected = prepare(
        body, "chat.completions", TABLE.profiles.profiles[name], prompt, upstream, client_model
    )
    assert route(json.dumps(body).encode(), "chat.completions", TABLE) == Routed(name, expected)


@pytest.mark.parametrize(
    ("body", "name", "status"),
    [
        ({"model": "nobody"}, None, 404),
        ({"model": "small"}, "small", 400),
        ({"model": "other", "messages": 5}, "other", 400),
    ],
)
def test_a_refusal_says_whose_request_it_was_if_that_is_known(
    body: dict[str, Any], name: str | None, status: int
) -> None:
    found = route(json.dumps(body).encode(), "chat.completions", TABLE)
    assert isinstance(found, Refused)
    assert (found.profile, found.error.status) == (name, status)


def test_what_is_not_json_is_refused() -> None:
    found = route(b"{", "chat.completions", TABLE)
    assert isinstance(found, Refused)
    assert (found.profile, found.error.status) == (None, 400)


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1", b'""', b'"a"', b'[{"a":[]}]'])
def test_a_body_of_too_many_values_is_refused(value: bytes) -> None:
    with refused(400, says=f"more than {MAX_VALUES} values"):
        check_size(b"[" + b",".join([value] * (MAX_VALUES + 1)) + b"]")


def test_what_stands_in_a_text_is_no_value() -> None:
    for text in (",[{" * MAX_VALUES, '\\",' * MAX_VALUES, "\n,é😀" * MAX_VALUES):
        raw = json.dumps(chat(text), ensure_ascii=False).encode()
        check_size(raw)
        check_size(raw.replace(b"\\n", b"\n"))


def test_a_conversation_of_ten_thousand_messages_has_not_too_many_values() -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}] * 10_000}
    check_size(json.dumps(body).encode())


@pytest.mark.parametrize("raw", [b'{"a', b'{"a": "b\\"}', b'["a", "]'])
def test_a_text_that_does_not_end_is_no_json(raw: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(raw)
    with pytest.raises(RequestError, match="not JSON"):
        check_size(raw)
