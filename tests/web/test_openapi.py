"""The OpenAPI document: it describes every path, and no request that is made from it breaks the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from draftd.engine.answers.timings import Timings
from draftd.web import openapi
from draftd.web.openapi import ANSWERS, BODIES
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


async def test_answers_are_what_it_says(tmp_path: Path) -> None:
    said: list[dict[str, str]] = [{"role": "user", "content": "hi"}]
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": said},
        "/v1/completions": {"prompt": "hi"},
        "/v1/messages": {"messages": said, "max_tokens": 3},
        "/v1/messages/count_tokens": {"messages": said},
        "/v1/responses": {"input": "hi"},
    }
    assert bodies.keys() == BODIES.keys()
    async with serving(tmp_path, {"a": fake()}) as served:
        for path, body in bodies.items():
            answer = await served.post(path, {"model": "a", **body})
            ANSWERS[path].model_validate(answer.json)
        ANSWERS["/v1/models"].model_validate((await served.get("/v1/models")).json)


def test_the_timings_are_the_engine_s() -> None:
    drafts = SimpleNamespace(proposed=2, accepted=1)
    assert openapi.Timings.model_fields.keys() == Timings(0.0).told(1, 0, 1, 1.0, drafts).keys()


@pytest.mark.thorough
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
