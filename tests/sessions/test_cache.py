"""Ten turns of each agent, asked of the demo model: every turn reads only what is new."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from draftd.demo import DRAFT, TARGET
from tests.harness import Served, serving
from tests.sessions.recording import HERE, TURNS, whole

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

PROFILE = f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\nnum_draft_tokens = 5\n'
# Tokens of a prompt that are read again if the next one begins with it: the last one, from which the answer goes
# on, and those that open the answer, behind which the next prompt has the model's own.
MAX_AGAIN = 4
AGENTS = ("claude", "codex", "opencode")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("sessions"), {"demo": PROFILE}, ready_limit=120) as running:
        yield running


def recorded(name: str) -> tuple[str, list[dict[str, Any]]]:
    """The path, and the requests, each for a short answer of the demo model's."""
    told = json.loads((HERE / f"{name}.json").read_text())
    limit = "max_output_tokens" if told["path"] == "/v1/responses" else "max_tokens"
    short = {"model": "demo", "stream": False, "stream_options": None, limit: 4}
    return told["path"], [{**request, **short} for request in whole(told["requests"])]


def tokens(answer: dict[str, Any]) -> tuple[int, int]:
    """The tokens of the prompt, and how many of them came out of the cache, in any dialect."""
    usage = answer["usage"]
    if "cache_read_input_tokens" in usage:
        return usage["input_tokens"] + usage["cache_read_input_tokens"], usage["cache_read_input_tokens"]
    if "input_tokens" in usage:
        return usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]
    return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.fault(123)
@pytest.mark.parametrize("name", AGENTS)
async def test_every_turn_reads_only_what_is_new(served: Served, name: str) -> None:
    path, requests = recorded(name)
    assert len(requests) == TURNS
    before = 0
    for number, request in enumerate(requests):
        answer = await served.post(path, request)
        assert answer.status == 200, answer.text
        read, cached = tokens(answer.json)
        assert read > before + 8, "a turn adds a call and its result"
        if number:
            assert before - MAX_AGAIN <= cached < read, (number, before, cached, read)
        before = read
