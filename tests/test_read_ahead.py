"""A prompt is read before it comes, with the real engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from draftd.demo import DRAFT, TARGET
from draftd.workers import read_ahead as module
from tests.harness import LIMIT, chat, serving

SYSTEM = " ".join(f"Rule {number}: mind the draft model." for number in range(30))


@pytest.mark.real
async def test_a_request_finds_read_what_was_named_in_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "agent.txt").write_text(SYSTEM)
    done, read = asyncio.Event(), module._read

    async def reading(*of: Any) -> None:
        await read(*of)
        done.set()

    monkeypatch.setattr(module, "QUIET", 0.01)
    monkeypatch.setattr(module, "_read", reading)
    profiles = {"a": f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\n'}
    async with serving(tmp_path, profiles, cache_preload=(tmp_path / "agent.txt",)) as served:
        async with asyncio.timeout(LIMIT):
            await done.wait()
        messages = [{"role": "system", "content": SYSTEM}, *chat("Hi!")["messages"]]
        answer = await served.post(
            "/v1/chat/completions", {"model": "a", "messages": messages, "max_tokens": 2}
        )
        usage = answer.json["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > 0.9 * usage["prompt_tokens"]
        assert served.row("a")["requests"] == 1
