"""The real OpenCode as a client of the daemon: the config that draftd makes, its tools, and each preset by name.

'make opencode' installs it (350 MB from npm) and asks all three presets. A first question costs a prompt of
8.6 thousand tokens, so elsewhere one preset stands for the three.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from draftd.demo import DRAFT, TARGET
from draftd.ops.connect.offer import Offer, OfferedModel
from draftd.ops.connect.opencode import change, opencode_config, write
from tests.agents import TOOL_CALLER, run_agent, scripted_model
from tests.harness import Served, serving

INSTALLED = Path(__file__).parents[1] / "build" / "opencode" / "node_modules" / ".bin" / "opencode"
OPENCODE = str(INSTALLED) if INSTALLED.exists() else shutil.which("opencode")
PRESETS = {"balanced": 5, "fast": 3, "max": 7}
ASKED = tuple(PRESETS) if os.environ.get("ALL_PRESETS") else ("balanced",)
SWITCHES = ("MODELS_FETCH", "AUTOUPDATE", "LSP_DOWNLOAD", "SHARE", "DEFAULT_PLUGINS")
LIMIT = 300.0  # seconds

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        OPENCODE is None, reason="OpenCode is not installed; 'make opencode' does it, with npm"
    ),
]


class OpenCode:
    """OpenCode in a folder of its own, which sees nothing of whoever runs the test."""

    def __init__(self, folder: Path, served: Served, models: list[OfferedModel]) -> None:
        self.project = folder / "project"
        self.project.mkdir(parents=True)
        self._home = folder / "home"
        self._home.mkdir()
        self._config = folder / "opencode.jsonc"
        self._config.write_text('{\n  "share": "disabled" // mine\n}\n')
        config = opencode_config(Offer(models, models[0].name, f"{served.url}/v1"))
        for entry in config["provider"]["speculative"]["models"].values():
            entry["limit"]["output"] = 24  # the demo pair has no end in it for prompts like OpenCode's
        write(change(self._config, config), datetime.now())

    async def ask(self, question: str, *options: str) -> str:
        """What OpenCode prints. Fails unless it ends well."""
        assert OPENCODE is not None
        env = {
            "PATH": f"{Path(OPENCODE).parent}:{os.environ['PATH']}",
            "HOME": str(self._home),
            "PWD": str(self.project),  # the project is found from it
            "TERM": "dumb",
            "NO_COLOR": "1",
            "OPENCODE_CONFIG": str(self._config),
            **{f"OPENCODE_DISABLE_{switch}": "1" for switch in SWITCHES},
        }
        out, err = await run_agent(
            OPENCODE, "run", *options, question, folder=self.project, env=env, limit=LIMIT
        )
        assert "Error" not in err
        return out.strip()


# --- tools, with a scripted model ---------------------------------------------------------------------------


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[tuple[OpenCode, Path]]:
    """OpenCode with the scripted model, and the file of the requests that reached it."""
    async with scripted_model(tmp_path) as (served, log):
        yield OpenCode(tmp_path / "client", served, [OfferedModel("caller", 0, 32768)]), log


def requests(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


async def test_a_tool_is_called_and_its_result_comes_back(scripted: tuple[OpenCode, Path]) -> None:
    opencode, log = scripted
    file = opencode.project / "note.txt"
    file.write_text("the word is swordfish\n")
    said = await opencode.ask(f"What is in [[{file}]]?")
    assert said.startswith("It says:")
    assert "swordfish" in said
    with_tools = [body for body in requests(log) if body.get("tools")]
    assert len(with_tools) == 2
    assert {"read", "bash", "edit"} <= {tool["function"]["name"] for tool in with_tools[0]["tools"]}
    roles = [message["role"] for message in with_tools[1]["messages"]]
    assert roles[-2:] == ["assistant", "tool"]


async def test_a_call_that_could_not_be_parsed_ends_the_turn(scripted: tuple[OpenCode, Path]) -> None:
    """mlx_lm.server then ends with `tool_calls` but sends none, and OpenCode would ask again for ever."""
    opencode, log = scripted
    assert await opencode.ask("Please [[blunder]].") == "oops"
    assert len([body for body in requests(log) if body.get("tools")]) == 1


async def test_it_is_launched_with_nothing_written(tmp_path: Path) -> None:
    """`draftd launch opencode`, in a home that has no config at all."""
    assert OPENCODE is not None
    command = [sys.executable, str(TOOL_CALLER), "--port", "{port}", "--log-requests", str(tmp_path / "log")]
    profile = f'model = "scripted"\ncommand = {json.dumps(command)}\n[limits]\nconcurrency = 2\n'
    project, home = tmp_path / "project", tmp_path / "home"
    project.mkdir()
    home.mkdir()
    (tmp_path / "daemon").mkdir()
    async with serving(tmp_path / "daemon", {"caller": profile}, api_key="secret") as served:
        env = {
            "PATH": f"{Path(OPENCODE).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "PWD": str(project),
            "TERM": "dumb",
            "NO_COLOR": "1",
            "DRAFTD_API_KEY": "secret",
            "DRAFTD_STATE_DIR": str(served.daemon.settings.state_dir),
            **{f"OPENCODE_DISABLE_{switch}": "1" for switch in SWITCHES},
        }
        launch = [sys.executable, "-m", "draftd", "launch", "opencode", "--", "run", "Hello"]
        out, _ = await run_agent(*launch, folder=project, env=env, limit=LIMIT)
        assert out.strip() == "A title"
    assert not [file for file in home.rglob("opencode.json*") if "caller" in file.read_text()]


# --- the demo pair ------------------------------------------------------------------------------------------


async def test_each_preset_answers_by_its_name(tmp_path: Path) -> None:
    pair = f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\n'
    profiles = {name: f"{pair}num_draft_tokens = {length}\n" for name, length in PRESETS.items()}
    models = [OfferedModel(name, length, 32768) for name, length in PRESETS.items()]
    (tmp_path / "daemon").mkdir()
    async with serving(tmp_path / "daemon", profiles, ready_limit=120.0, stop_grace=5.0) as served:
        for name in ASKED:
            before = await served.metrics()
            opencode = OpenCode(tmp_path / name, served, models)
            said = await opencode.ask("What is speculative decoding?", "-m", f"speculative/{name}")
            assert said != ""
            after = await served.metrics()
            sample = f'draftd_prompt_tokens_total{{profile="{name}"}}'
            assert after[sample] - before[sample] > 6000  # the tools and rules that it sends with a question
            answered = f'draftd_requests_total{{endpoint="chat.completions",profile="{name}",status="200"}}'
            assert after[answered] > before[answered]
