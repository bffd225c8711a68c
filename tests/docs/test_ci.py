"""The workflow runs what exists, on both systems; and `.ci/demo` tries the demo."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.docs.pages import ROOT
from tests.harness import free_ports

JOB: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
ACTION = re.compile(r"actions/(checkout|setup-python|upload-artifact)@v\d+\.\d+\.\d+")
LIMIT = 120.0  # seconds


def test_the_workflow_sees_linux_and_apple_silicon() -> None:
    runners = [row["runner"] for row in JOB["strategy"]["matrix"]["include"]]
    assert JOB["runs-on"] == "${{ matrix.runner }}"
    assert any(runner.startswith("ubuntu-") for runner in runners)
    assert any(int(found[1]) >= 14 for runner in runners if (found := re.fullmatch(r"macos-(\d+)", runner)))


def test_the_workflow_uses_known_actions_and_scripts_that_can_run() -> None:
    assert [
        step["uses"]
        for step in JOB["steps"]
        if not ACTION.fullmatch(step.get("uses", "actions/checkout@v1.0.0"))
    ] == []
    scripts = [
        word for step in JOB["steps"] for word in step.get("run", "").split() if word.startswith(".ci/")
    ]
    assert scripts == [".ci/run", ".ci/demo"]
    assert [script for script in scripts if not os.access(ROOT / script, os.X_OK)] == []


def test_what_can_only_be_seen_on_a_mac_is_looked_at_there_and_kept() -> None:
    """Even if a test has failed: nobody here can see what a Mac prints."""
    steps = [step for step in JOB["steps"] if "mac-check" in str(step)]
    assert [step.get("run", step.get("uses", "")).split()[0] for step in steps] == [
        "make", "cat", "actions/upload-artifact@v4.4.3",
    ]  # fmt: skip
    assert {step["if"] for step in steps} == {"${{ !cancelled() && runner.os == 'macOS' }}"}


def test_make_targets_in_scripts_exist() -> None:
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for script in (".ci/run", ".ci/demo", ".github/workflows/ci.yml")
        for target in re.findall(r"\bmake (?:-s )?([\w-]+)", (ROOT / script).read_text())
    }
    assert named
    assert named <= targets


@pytest.mark.real
def test_the_demo_can_be_tried_and_leaves_nothing(tmp_path: Path) -> None:
    draftd = str(Path(sys.executable).with_name("draftd"))
    done = _try(tmp_path, draftd, "up", "--demo", "--plain", DRAFTD=draftd, DEMO_SECONDS="0")
    assert done.returncode == 0, done.stderr
    assert "left nothing behind" in done.stdout
    assert list((tmp_path / "scratch").glob("tmp*")) == []  # mlx leaves a folder of its own there


def test_a_demo_that_does_not_start_is_told(tmp_path: Path) -> None:
    done = _try(tmp_path, "false")
    assert done.returncode == 1
    assert "the demo ended before it was ready" in done.stderr


def _try(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    scratch = folder / "scratch"
    scratch.mkdir()
    environment = {
        **os.environ, "TMPDIR": str(scratch), "DRAFTD_PORT": str(free_ports()),
        "DRAFTD_BASE_PORT": str(free_ports(5)), **variables,
    }  # fmt: skip
    return subprocess.run(
        [str(ROOT / ".ci/demo"), *command],
        env=environment, capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip
