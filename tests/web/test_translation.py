"""Messages and responses over both transports: what is sent when, and how an answer that breaks off ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from draftd.web.body_reader import LARGE
from tests.harness import Served, fake, serving
from tests.web.raw_http import Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/messages"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("translated")
    async with serving(folder, {"a": fake()}, keepalive_interval=0.2) as running:
        yield running


def request(wire: Wire, text: str, path: str = PATH, **fields: Any) -> bytes:
    body = {"model": "a", "max_tokens": 3, "messages": [{"role": "user", "content": text}], **fields}
    return wire.post(json.dumps(body).encode(), path=path)


def kinds(body: bytes) -> list[str]:
    """The kinds of the events, each of which states its kind twice."""
    found = []
    for event in body.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append(name.removeprefix("event: "))
        assert json.loads(data.removeprefix("data: "))["type"] == found[-1]
    return found


async def test_an_answer_comes_in_one_piece_or_as_events(served: Served, wire: Wire) -> None:
    whole = await wire.ask(served, request(wire, "hi"))
    assert (whole.status, whole.headers["content-type"]) == (200, "application/json")
    assert whole.json["content"] == [{"type": "text", "text": "one two three"}]
    assert whole.headers["request-id"] == whole.headers["x-request-id"]
    assert whole.headers["x-draftd-profile"] == "a"
    stream = await wire.ask(served, request(wire, "hi", stream=True))
    assert (stream.status, stream.headers["content-type"], stream.whole) == (200, "text/event-stream", True)
    assert kinds(stream.body)[-3:] == ["content_block_stop", "message_delta", "message_stop"]


async def test_a_long_wait_is_filled_with_pings(served: Served, wire: Wire) -> None:
    stream = await wire.ask(served, request(wire, "[[wait 0.7]]", stream=True))
    assert kinds(stream.body)[:3] == ["ping", "ping", "ping"]
    assert kinds(stream.body)[-1] == "message_stop"
    assert (await wire.ask(served, request(wire, "[[wait 0.7]]"))).json["stop_reason"] == "max_tokens"


async def test_an_answer_that_breaks_ends_as_an_error_and_never_as_a_message(
    served: Served, wire: Wire
) -> None:
    stream = await wire.ask(served, request(wire, "[[error-event]]", stream=True))
    assert (kinds(stream.body)[-1], stream.whole) == ("error", False)
    whole = await wire.ask(served, request(wire, "[[error-event]]"))
    assert (whole.status, whole.json["type"], whole.error["type"]) == (502, "error", "api_error")


@pytest.mark.parametrize(
    ("path", "fields", "status", "kind"),
    [
        (PATH, {"model": "nobody"}, 404, "not_found_error"),
        (PATH, {"messages": []}, 400, "invalid_request_error"),
        (f"{PATH}/count_tokens", {}, 400, "invalid_request_error"),  # it takes no max_tokens
        (f"{PATH}/batches", {}, 404, "not_found_error"),
        (f"{PATH}?beta=true", {"mesages": []}, 400, "invalid_request_error"),
    ],
)
async def test_errors_have_anthropic_s_form(
    served: Served, wire: Wire, path: str, fields: dict[str, Any], status: int, kind: str
) -> None:
    answer = await wire.ask(served, request(wire, "hi", path, **fields))
    assert (answer.status, answer.json["type"], answer.error["type"]) == (status, "error", kind)
    assert answer.json["request_id"] == answer.headers["request-id"]


async def test_a_refusal_names_the_field_that_was_sent(served: Served, wire: Wire) -> None:
    said = (await wire.ask(served, request(wire, "hi", stop_sequences=["x"] * 17))).error["message"]
    assert said.startswith("stop_sequences must be at most 16")


async def test_a_query_changes_nothing(served: Served, wire: Wire) -> None:
    assert (await wire.ask(served, request(wire, "hi", f"{PATH}?beta=true"))).status == 200


async def test_a_large_request_is_read_elsewhere_like_any_other(served: Served, wire: Wire) -> None:
    answer = await wire.ask(served, request(wire, "x" * 2 * LARGE))
    assert (answer.status, answer.json["role"]) == (200, "assistant")
    long = await wire.ask(served, request(wire, "x" * 2 * LARGE, mesages=[]))
    assert (long.status, long.error["type"]) == (400, "invalid_request_error")


async def test_the_tokens_of_a_prompt_are_counted(served: Served, wire: Wire) -> None:
    body = json.dumps({"model": "a", "messages": [{"role": "user", "content": "hi"}]}).encode()
    answer = await wire.ask(served, wire.post(body, path=f"{PATH}/count_tokens"))
    assert (answer.status, answer.json) == (200, {"input_tokens": 7})


def responses(wire: Wire, text: str, **fields: Any) -> bytes:
    body = {"model": "a", "max_output_tokens": 3, "input": text, **fields}
    return wire.post(json.dumps(body).encode(), path="/v1/responses")


async def test_a_response_comes_in_one_piece_or_as_events(served: Served, wire: Wire) -> None:
    whole = await wire.ask(served, responses(wire, "hi"))
    assert (whole.status, whole.json["output"][0]["content"][0]["text"]) == (200, "one two three")
    assert whole.json["id"] == "resp_" + whole.headers["x-request-id"]
    stream = await wire.ask(served, responses(wire, "[[wait 0.5]]", stream=True))
    assert (stream.headers["content-type"], stream.whole) == ("text/event-stream", True)
    assert kinds(stream.body)[:3] == ["response.created", "response.in_progress", "response.in_progress"]
    assert kinds(stream.body)[-1] == "response.incomplete"


async def test_a_response_that_breaks_has_an_end_that_says_so(served: Served, wire: Wire) -> None:
    stream = await wire.ask(served, responses(wire, "[[error-event]]", stream=True))
    assert (kinds(stream.body)[-1], stream.whole) == ("response.failed", True)
    whole = await wire.ask(served, responses(wire, "[[error-event]]"))
    assert (whole.status, whole.error["type"]) == (502, "server_error")


@pytest.mark.one_in(2)
async def test_a_large_request_for_a_response_is_read_elsewhere_with_what_it_repeats(
    served: Served, wire: Wire
) -> None:
    answer = await wire.ask(served, responses(wire, "x" * 2 * LARGE, metadata={"a": "b"}))
    assert (answer.status, answer.json["metadata"], answer.json["model"]) == (200, {"a": "b"}, "a")
    refused = await wire.ask(served, responses(wire, "x" * 2 * LARGE, store=True))
    assert (refused.status, refused.error["param"]) == (400, "store")
