"""`draftd doctor` as a user types it, on the machine that runs the tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from draftd.demo import DRAFT, TARGET
from draftd.instance import NOTE
from tests.forked import run
from tests.harness import fake, free_ports
from tests.test_cli import up

DEMO = f'model = "{TARGET}"\ndraft_model = "{DRAFT}"\n'


class Machine:
    """A user's machine: folders of its own, free ports, and the demo pair for a profile."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.profiles = folder / "profiles"
        self.profiles.mkdir()
        (self.profiles / "demo.toml").write_text(DEMO)
        self.port = free_ports(3)
        self.env = os.environ | {
            "DRAFTD_STATE_DIR": str(self.state),
            "DRAFTD_PROFILES": str(self.profiles),
            "DRAFTD_PORT": str(self.port),
            "DRAFTD_BASE_PORT": str(self.port + 1),
            "HF_HOME": str(folder / "hub"),
            "HF_HUB_OFFLINE": "1",
        }

    def doctor(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run("doctor", *words, env=self.env)

    def findings(self) -> dict[str, dict[str, Any]]:
        """By their `what`, with the exit code checked against the worst."""
        done = self.doctor("--json")
        found = json.loads(done.stdout)
        severities = {finding["severity"] for finding in found}
        assert done.returncode == (2 if "error" in severities else 1 if "warning" in severities else 0)
        return {finding["what"]: finding for finding in found}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_on_a_machine_in_order_each_thing_looked_at_is_told(machine: Machine) -> None:
    done = machine.doctor()
    assert (done.returncode, done.stderr) == (0, "")
    assert "✓ versions  Python" in done.stdout
    assert f"✓ models    {TARGET} is here" in done.stdout
    assert "have one vocabulary of" in done.stdout
    assert f"✓ ports     {machine.port}, {machine.port + 1}: free" in done.stdout
    assert "no daemon is running" in done.stdout


def test_a_taken_port_and_a_model_that_is_not_here_are_told(machine: Machine) -> None:
    (machine.profiles / "more.toml").write_text('model = "some/model"\n')
    with socket.create_server(("127.0.0.1", machine.port)):
        found = machine.findings()
    (busy,) = (finding for what, finding in found.items() if f"port {machine.port} is held by" in what)
    assert busy["severity"] == "error"
    assert busy["do"].startswith(f"kill {os.getpid()} ")
    assert any(what.startswith("some/model is not downloaded") for what in found)


def test_a_broken_profile_is_an_error_with_its_line(machine: Machine) -> None:
    (machine.profiles / "more.toml").write_text("model = 1\n")
    broken = machine.doctor()
    assert broken.returncode == 2
    assert "more.toml:1: model" in broken.stdout


def test_fix_mends_what_is_safe_and_says_what(machine: Machine) -> None:
    machine.state.mkdir()
    (machine.state / NOTE).write_text("{}")
    done = machine.doctor("--fix")
    assert done.stderr.count("fixed: ") == 2
    assert not (machine.state / NOTE).exists()
    assert Path(machine.env["HF_HOME"], "hub").is_dir()
    assert "left its note" not in done.stdout  # what was mended is reported as mended, not as found
    assert machine.doctor("--fix").stderr == "nothing to fix\n"


def test_a_running_daemon_is_no_trouble_to_its_doctor(tmp_path: Path) -> None:
    with up(tmp_path, "one", profile=fake()) as daemon:
        done = daemon.run("doctor", "--fix")
        assert f"runs: pid {daemon.process.pid}, http://127.0.0.1:{daemon.port}" in done.stdout
        assert (daemon.state_dir / NOTE).exists()
