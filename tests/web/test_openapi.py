"""The OpenAPI document: it tells of every path, and no request that is made from it breaks the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok

from tests.harness import Served, fake, serving

EXAMPLES = 25  # of each operation


async def document(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = (await served.get("/openapi.json")).json
    return found


async def test_it_tells_of_every_path_and_what_the_checks_ask_for(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        made = await document(served)
    assert made["openapi"] == "3.1.0"
    assert {
        "/v1/chat/completions",
        "/v1/models/{id}",
        "/api/workers/{name}/{order}",
        "/metrics",
        "/openapi.json",
    } <= set(made["paths"])
    assert made["paths"]["/healthz"]["get"]["summary"] == "GET /healthz: the daemon is alive"
    chat = made["components"]["schemas"]["ChatRequest"]
    assert chat["required"] == ["messages"]
    assert chat["properties"]["num_draft_tokens"]["anyOf"][0]["maximum"] == 64
    answer = made["components"]["schemas"]["ChatCompletion"]
    assert {"id", "created", "model", "choices", "object"} <= set(answer["required"])


async def test_no_request_that_is_made_from_it_is_a_server_error(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        made = await document(served)
        for path in [path for path in made["paths"] if "events" in path]:
            del made["paths"][path]  # it never ends
        statuses = await asyncio.to_thread(ask_all, made, served.url)
        assert served.state("a") == "ready"
    assert {200, 400, 404} <= statuses
    assert max(statuses) < 500


def ask_all(made: dict[str, Any], url: str) -> set[int]:
    """Ask each operation with what its schema allows, from one seed; the statuses that came."""
    statuses: set[int] = set()
    schema = schemathesis.openapi.from_dict(made)
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        varied = operation.body or operation.path_parameters

        @seed(1)
        @settings(
            max_examples=EXAMPLES if varied else 2,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy())
        def ask(case: schemathesis.Case[Any]) -> None:
            response = case.call(base_url=url, timeout=10)
            statuses.add(response.status_code)
            case.validate_response(response, checks=[not_a_server_error])

        ask()
    return statuses
