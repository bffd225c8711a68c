"""Router: which profile a request's `model` means, and what the body becomes with it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.errors import RequestError
from draftd.profiles import Profile, ProfileSet
from draftd.web.request_body import prepare
from draftd.web.router import Refused, Routed, RoutingTable, parse_body, route
from tests.harness import chat
from tests.web.given import junk, profile, refused

FAST = profile("fast", aliases=["gpt-4o", "speculative/odd"], autostart=False)
MAX = profile("max", aliases=["org/Max:4bit"])
SLOW = profile("slow")


def router(*profiles: Profile, default: str = "") -> RoutingTable:
    return RoutingTable(ProfileSet({each.name: each for each in profiles}), default)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("fast", "fast"),
        ("gpt-4o", "fast"),
        ("org/Max:4bit", "max"),
        ("speculative/max", "max"),
        ("speculative/gpt-4o", "fast"),
        ("speculative/odd", "fast"),
        ("speculative/speculative/odd", "fast"),
    ],
)
def test_names_and_aliases_are_found_with_or_without_the_prefix(model: str, name: str) -> None:
    assert router(FAST, MAX, SLOW).resolve(model).name == name


@pytest.mark.parametrize(
    "model", ["", "Fast", "fast ", "odd", "speculative/", "speculative/speculative/max", "max/speculative"]
)
def test_an_unknown_model_is_not_found_and_the_answer_names_those_there_are(model: str) -> None:
    with pytest.raises(RequestError) as caught:
        router(FAST, MAX).resolve(model)
    error = caught.value
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert str(error) == f"there is no model '{model}'; there are: fast, max"


@pytest.mark.parametrize(
    ("profiles", "default", "name"),
    [
        ((FAST, MAX, SLOW), "", "max"),
        ((FAST, MAX, SLOW), "slow", "slow"),
        ((FAST, MAX, SLOW), "fast", "fast"),
        ((FAST, MAX, SLOW), "gpt-4o", "fast"),
        ((FAST, MAX, SLOW), "gone", "max"),
        ((SLOW, MAX), "", "slow"),
        ((FAST,), "fast", "fast"),
    ],
)
def test_a_missing_model_means_the_default_or_else_the_first_that_starts_by_itself(
    profiles: tuple[Profile, ...], default: str, name: str
) -> None:
    assert router(*profiles, default=default).resolve(None).name == name


@pytest.mark.fault(34)
@pytest.mark.parametrize("profiles", [(), (FAST,)])
def test_a_missing_model_without_a_default_is_refused(profiles: tuple[Profile, ...]) -> None:
    with refused(400, param="model", says="no default"):
        router(*profiles).resolve(None)


@pytest.mark.parametrize("model", [0, 5, 1.5, True, False, [], ["fast"], {}, {"fast": 1}])
def test_what_is_no_string_names_no_model(model: object) -> None:
    with refused(400, param="model", says="must be a string"):
        router(FAST, MAX).resolve(model)


def test_a_huge_name_is_quoted_short() -> None:
    with pytest.raises(RequestError) as caught:
        router(FAST).resolve("x" * 1_000_000)
    assert "x" * 100 in str(caught.value)
    assert len(str(caught.value)) < 200


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


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not JSON"),
        (b" ", "not JSON"),
        (b"{'canary': 1}", "not JSON"),
        (b'{"canary": 1} 2', "not JSON.* at character 14"),
        (b'{"canary": 1', "not JSON"),
        (b'\xef\xbb\xbf{"canary": 1}', "BOM"),
        (b'{"canary": NaN}', "NaN is not JSON"),
        (b'{"canary": Infinity}', "Infinity is not JSON"),
        (b'{"canary": -Infinity}', "-Infinity is not JSON"),
        (b'{"canary": "\xff"}', "UTF-8"),
        ('{"canary": 1}'.encode("utf-16"), "UTF-8"),
        (b'{"canary": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deep"),
        (b'{"canary":' * 100_000 + b"1" + b"}" * 100_000, "too deep"),
        (b'{"canary": ' + b"9" * 5000 + b"}", "number"),
        (b'{"canary": 1e999}', "number"),
        (b'{"canary": "\\ud800 "}', "surrogate"),
        (b'["canary"]', "object"),
        (b'"canary"', "object"),
        (b"5", "object"),
        (b"null", "object"),
        (b"true", "object"),
    ],
)
def test_what_is_no_json_object_is_refused_and_not_quoted(raw: bytes, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        parse_body(raw)
    assert caught.value.status == 400
    assert "canary" not in str(caught.value)


@given(st.binary() | st.text().map(str.encode) | st.binary().map(lambda raw: b'{"a": "' + raw + b'"}'))
def test_any_bytes_are_an_object_or_refused(raw: bytes) -> None:
    try:
        body = parse_body(raw)
    except RequestError:
        return
    assert body == json.loads(raw)


@given(st.dictionaries(st.text(), junk.filter(lambda value: value == value)))
def test_any_object_is_read_as_it_was_written(body: dict[str, Any]) -> None:
    try:
        raw = json.dumps(body, allow_nan=False).encode()
    except ValueError:
        return
    assert parse_body(raw) == body


def test_of_two_models_the_one_that_is_routed_is_forwarded() -> None:
    body = parse_body(
        b'{"model": "first", "model": "second", "messages": [{"role": "user", "content": "a"}]}'
    )
    assert body["model"] == "second"
    payload = prepare(body, "chat.completions", profile(), "", "default_model", body["model"]).payload
    assert payload.count(b'"model"') == 1
    assert json.loads(payload)["model"] == "default_model"
