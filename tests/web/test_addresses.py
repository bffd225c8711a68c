"""The addresses that people type, over both transports."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from draftd.web.addresses import COMPLETIONS, meant, nearest
from tests.harness import Served, chat, fake, serving
from tests.web.raw_http import Wire

QUESTIONS = {
    "/v1/chat/completions": chat("hi", model="a"),
    "/v1/completions": {"model": "a", "prompt": "hi"},
    "/v1/messages": {"model": "a", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]},
    "/v1/messages/count_tokens": {"model": "a", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"model": "a", "input": "hi"},
}


def typed(address: str) -> list[str]:
    """The ways in which people get an address wrong."""
    rest = address.removeprefix("/v1")
    return [
        rest,
        f"/{address}",
        f"/v1{address}",
        f"{address}/",
        f"//v1//v1/{rest}//",
        address.replace("/", "//"),
    ]


@pytest.mark.parametrize("address", [*COMPLETIONS, "/v1/models", "/v1/models/org/name"])
def test_what_people_type_for_an_address_is_taken_for_it(address: str) -> None:
    assert [meant(path) for path in typed(address)] == [address] * 6
    assert meant(address) == address


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "//", "/api/status", "//healthz", "/v2/messages", "/chat"]
)
def test_any_other_path_stays_as_it_is(path: str) -> None:
    assert meant(path) == path


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
        ("/v1/responses/messages/count_tokens/", "/v1/messages/count_tokens"),
        ("/openai/v1/responses", "/v1/responses"),
        ("/api/chat", "/v1/chat/completions"),
        ("/api/tags", "/v1/models"),
        ("/v1/model", "/v1/models"),
        ("/nothing/like/it", None),
    ],
)
def test_an_error_names_the_address_that_comes_nearest(path: str, address: str | None) -> None:
    assert nearest(path) == address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    profiles = {"a": fake(top='aliases = ["x/y"]')}
    async with serving(tmp_path_factory.mktemp("served"), profiles) as running:
        yield running


@pytest.mark.fault(120)
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("address", QUESTIONS)
async def test_every_dialect_answers_at_each_of_them(wire: Wire, served: Served, address: str) -> None:
    body = json.dumps(QUESTIONS[address]).encode()
    kinds = set()
    for path in (address, *typed(address)):
        answer = await wire.ask(served, wire.post(body, path=path))
        assert answer.status == 200, path
        kinds.add(str(sorted(answer.json)))
    assert len(kinds) == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_so_does_the_list_of_models(wire: Wire, served: Served) -> None:
    for path in ("/v1/models", *typed("/v1/models")):
        answer = await wire.ask(served, wire.request(b"", method="GET", path=path))
        assert [model["id"] for model in answer.json["data"]] == ["a"], path
    for path in ("/v1/models/x/y", *typed("/v1/models/x/y")):
        answer = await wire.ask(served, wire.request(b"", method="GET", path=path))
        assert answer.json["id"] == "a", path


@pytest.mark.asyncio(loop_scope="module")
async def test_a_path_that_leads_nowhere_is_told_with_the_one_that_was_meant(
    wire: Wire, served: Served
) -> None:
    answer = await wire.ask(served, wire.post(b"{}", path="/v1/chat/completion"))
    assert answer.status == 404
    assert answer.error["message"] == "there is nothing at this path; did you mean /v1/chat/completions?"
    answer = await wire.ask(served, wire.post(b"{}", path="/v1/messages/count"))
    assert answer.status == 404
    assert answer.json["type"] == "error"  # in Anthropic's form
    assert "/v1/messages/count_tokens" in answer.error["message"]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_wrong_method_is_told_as_such(wire: Wire, served: Served) -> None:
    answer = await wire.ask(served, wire.request(b"", method="GET", path="/chat/completions"))
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
