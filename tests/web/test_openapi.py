"""The OpenAPI document: it tells of every path, and no request that is made from it breaks the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.harness import Served, fake, serving


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
    from tests.web.made_requests import (
        ask_all,  # schemathesis takes half a second, in each process that collects
    )

    async with serving(tmp_path, {"a": fake()}) as served:
        made = await document(served)
        for path in [path for path in made["paths"] if "events" in path]:
            del made["paths"][path]  # it never ends
        statuses = await asyncio.to_thread(ask_all, made, served.url)
        assert served.state("a") == "ready"
    assert {200, 400, 404} <= statuses
    assert max(statuses) < 500
