"""The real Claude Code as a client of the daemon, with a scripted model: a tool call, and the form of the prompts.

'make claude-code' installs it (370 MB from npm).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents import further_messages, run_agent, scripted_model
from tests.harness import Served

INSTALLED = Path(__file__).parents[1] / "build" / "claude-code" / "node_modules" / ".bin" / "claude"
CLAUDE = str(INSTALLED) if INSTALLED.exists() else shutil.which("claude")
LIMIT = 120.0  # seconds
SWITCHES = (
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    "DISABLE_AUTOUPDATER",
    "DISABLE_ERROR_REPORTING",
    "DISABLE_TELEMETRY",
)

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        CLAUDE is None, reason="Claude Code is not installed; 'make claude-code' does it, with npm"
    ),
]


class ClaudeCode:
    """Claude Code in a folder of its own, which sees nothing of whoever runs the test."""

    def __init__(self, folder: Path, served: Served) -> None:
        self.project = folder / "project"
        self._home = folder / "home"
        for each in (self.project, self._home):
            each.mkdir(parents=True)
        self._served = served

    async def ask(self, question: str, *options: str) -> str:
        """What Claude Code prints. Fails unless it ends well."""
        assert CLAUDE is not None
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._home),
            "PWD": str(self.project),
            "TERM": "dumb",
            "ANTHROPIC_BASE_URL": self._served.url,
            "ANTHROPIC_AUTH_TOKEN": "local",
            "ANTHROPIC_MODEL": "caller",
            "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "32768",
            **dict.fromkeys(SWITCHES, "1"),
        }
        said, _ = await run_agent(CLAUDE, "-p", question, *options, folder=self.project, env=env, limit=LIMIT)
        return said.strip()


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[tuple[ClaudeCode, Path]]:
    """Claude Code with the scripted model, and the file of the requests that reached it."""
    async with scripted_model(tmp_path) as (served, log):
        yield ClaudeCode(tmp_path / "client", served), log


async def test_it_writes_a_file_and_every_turn_goes_on_from_the_one_before(
    scripted: tuple[ClaudeCode, Path],
) -> None:
    claude, log = scripted
    file = claude.project / "note.txt"
    said = await claude.ask(f"Write a note to [[{file}]].", "--permission-mode", "acceptEdits")
    assert said.startswith("It says:")
    assert file.read_text() == "swordfish\n"
    bodies: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    first, second = (body for body in bodies if body.get("tools"))
    assert {"Read", "Write", "Edit", "Bash"} <= {tool["function"]["name"] for tool in first["tools"]}
    assert first["messages"][0]["role"] == "system"
    assert "x-anthropic-billing-header" not in json.dumps(first["messages"])
    assert further_messages(first, second)[:2] == ["assistant", "tool"]
