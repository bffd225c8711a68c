"""What an installed draftd brings along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder

from draftd import __version__
from draftd.settings import shipped_dir

ROOT = Path(__file__).parent.parent


@pytest.mark.thorough
def test_the_wheel_carries_the_demo_pair_and_what_users_edit(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    assert Path(wheel).name.startswith(f"draftd-{__version__}-")
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        size = sum(entry.file_size for entry in archive.infolist() if "/demo/" in entry.filename)
    for model in ("target", "draft"):
        files = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
        assert {f"draftd/demo/{model}/{file}" for file in files} <= names
    assert "draftd/ops/monitoring/dashboard.json" in names
    for kind in ("profiles", "prompts", "launchd"):
        shipped = {path.name for path in (ROOT / kind).iterdir()}
        assert {f"draftd/shipped/{kind}/{name}" for name in shipped} <= names
    assert size < 12 * 2**20
    assert not [name for name in names if "/train/" in name]
    # Nothing beside our own package: python-daemon, for one, has the package `daemon`.
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"draftd"}


INTEL = """
import platform, sys
platform.machine, sys.platform = lambda: "x86_64", "darwin"
"""


@pytest.fixture
def intel(tmp_path: Path) -> Path:
    """A Python that takes itself for an Intel build on a Mac."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(INTEL)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "patch"} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


@pytest.mark.fault(114)
def test_an_installer_is_refused_an_intel_python_when_it_asks_for_the_metadata(intel: Path) -> None:
    ask = "from hatchling.build import prepare_metadata_for_build_wheel as ask; ask('/nowhere')"
    done = subprocess.run([intel, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=False)
    [line] = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith(
        "draftd: this Python is built for Intel, and mlx runs on Apple silicon only: take one"
    )


@pytest.mark.fault(114)
def test_make_refuses_an_intel_python_before_it_makes_anything(intel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    folder.mkdir()
    command = ["make", "-s", "-f", str(ROOT / "Makefile"), f"PYTHON={intel}", ".venv/python-ready"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "this Python is built for Intel" in done.stdout
    assert list(folder.iterdir()) == []


def test_a_checkout_uses_its_own_files() -> None:
    assert shipped_dir("profiles") == ROOT / "profiles"
