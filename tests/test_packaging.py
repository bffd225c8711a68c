"""What an installed draftd brings along."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

from hatchling.builders.wheel import WheelBuilder

from draftd import __version__
from draftd.settings import shipped_dir

ROOT = Path(__file__).parent.parent


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


def test_a_checkout_uses_its_own_files() -> None:
    assert shipped_dir("profiles") == ROOT / "profiles"
