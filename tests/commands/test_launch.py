"""`draftd launch`: agents started against a daemon that runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.harness import fake
from tests.test_cli import up

STUB = f"""#!{sys.executable}
import json, os, sys
print(json.dumps([sys.argv[1:], os.environ["OPENCODE_CONFIG_CONTENT"], os.environ["HOME"]]))
sys.exit(7)
"""


def test_the_agent_takes_the_place_of_the_command_with_all_that_it_needs(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    with up(tmp_path, "one-fast", "two-max", env={"PATH": str(programs)}) as daemon:
        missing = daemon.run("launch", "opencode")
        assert (missing.returncode, "npm install -g opencode-ai" in missing.stderr) == (1, True)
        stub = programs / "opencode"
        stub.write_text(STUB)
        stub.chmod(0o755)

        done = daemon.run("launch", "opencode", "--model", "max", "--", "run", "--model", "x", "two words")
        assert done.returncode == 7, done.stderr
        arguments, content, home = json.loads(done.stdout)
        assert arguments == ["run", "--model", "x", "two words"]
        config = json.loads(content)
        assert config["model"] == "speculative/two-max"
        options = config["provider"]["speculative"]["options"]
        assert options["baseURL"] == f"http://127.0.0.1:{daemon.port}/v1"
        assert home == str(tmp_path)

        assert (
            json.loads(json.loads(daemon.run("launch", "opencode").stdout)[1])["model"]
            == "speculative/one-fast"
        )
        (programs / "codex").write_text(
            f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:3], sys.argv[-1])\n"
        )
        (programs / "codex").chmod(0o755)
        led = daemon.run("launch", "codex", "--model", "max", "--", "exec")
        assert led.stdout == "['-c', 'model=\"two-max\"'] exec\n"
        (programs / "claude").write_text(
            f'#!{sys.executable}\nimport os\nprint(os.environ["ANTHROPIC_MODEL"])\n'
        )
        (programs / "claude").chmod(0o755)
        assert daemon.run("launch", "claude", "--model", "max").stdout == "two-max\n"
        assert daemon.run("launch", "aider").returncode == 2
        assert "there is no model 'nope'" in daemon.run("launch", "opencode", "--model", "nope").stderr
    assert daemon.run("launch", "opencode").returncode == 3  # no daemon is running
    written = {file.name for file in tmp_path.rglob("*") if "opencode" in str(file)}
    assert written == {"opencode"}  # the stub


def test_a_key_reaches_the_agent_in_its_variable(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "opencode").write_text(
        f'#!{sys.executable}\nimport os\nprint(os.environ["DRAFTD_API_KEY"])\n'
    )
    (programs / "opencode").chmod(0o755)
    env = {"PATH": str(programs), "DRAFTD_API_KEY": "canary"}
    with up(tmp_path, "a", profile=fake(), env=env) as daemon:
        assert daemon.run("launch", "opencode").stdout == "canary\n"
