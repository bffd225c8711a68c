"""The real Codex as a client of the daemon, with a scripted model: a tool call, and the form of the prompts.

'make codex' installs it (400 MB from npm).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from draftd.ops.connect.clients import client_settings
from draftd.ops.connect.offer import Offer, OfferedModel
from tests.agents import further_messages, run_agent, scripted_model
from tests.harness import Served

INSTALLED = Path(__file__).parents[1] / "build" / "codex" / "node_modules" / ".bin" / "codex"
CODEX = str(INSTALLED) if INSTALLED.exists() else shutil.which("codex")
LIMIT = 120.0  # seconds
# A test's folder is in no sandbox, and a test cannot provide one.
OPTIONS = ("exec", "--json", "--skip-git-repo-check", "--sandbox", "danger-full-access")

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(CODEX is None, reason="Codex is not installed; 'make codex' does it, with npm"),
]


class Codex:
    """Codex in a folder of its own, with the config that `draftd clients codex` prints."""

    def __init__(self, folder: Path, served: Served) -> None:
        self.project = folder / "project"
        self._home = folder / "home"
        for each in (self.project, self._home):
            each.mkdir(parents=True)
        offer = Offer([OfferedModel("caller", 5, 32768)], "caller", served.url + "/v1")
        (self._home / "config.toml").write_text(client_settings(offer)["codex"])

    async def ask(self, question: str) -> list[dict[str, Any]]:
        """The events that Codex prints. Fails unless it ends well."""
        assert CODEX is not None
        home = str(self._home)
        env = {"PATH": os.environ["PATH"], "HOME": home, "CODEX_HOME": home, "TERM": "dumb"}
        said, _ = await run_agent(CODEX, *OPTIONS, question, folder=self.project, env=env, limit=LIMIT)
        return [json.loads(line) for line in said.splitlines()]


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[tuple[Codex, Path]]:
    """Codex with the scripted model, and the file of the requests that reached it."""
    async with scripted_model(tmp_path) as (served, log):
        yield Codex(tmp_path / "client", served), log


async def test_it_writes_a_file_and_every_turn_goes_on_from_the_one_before(
    scripted: tuple[Codex, Path],
) -> None:
    codex, log = scripted
    file = codex.project / "note.txt"
    events = await codex.ask(f"Write a note to [[{file}]].")
    assert file.read_text() == "swordfish\n"
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    assert items[-1]["type"] == "agent_message"
    assert items[-1]["text"].startswith("It says:")
    assert events[-1]["type"] == "turn.completed"
    assert events[-1]["usage"]["input_tokens"] == 2  # two requests, of one token each
    bodies: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    first, second = (body for body in bodies if body.get("tools"))
    assert "exec_command" in {tool["function"]["name"] for tool in first["tools"]}
    assert {tool["type"] for tool in first["tools"]} == {"function"}
    assert [message["role"] for message in first["messages"]] == ["system", "user", "user"]
    assert further_messages(first, second) == ["assistant", "tool"]
