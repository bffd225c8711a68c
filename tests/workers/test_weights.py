"""A worker whose weights are all here is kept from asking the hub; any other is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download

from draftd.profiles import Profile
from draftd.workers.command import environment
from draftd.workers.weights import at_hand, size

REPO = "org/model"
COMMIT = "a" * 40


def profile(model: str = REPO, **keys: Any) -> Profile:
    return Profile.model_validate({"name": "p", "model": model, **keys})


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A finished download, as huggingface_hub itself finds it."""
    repo = tmp_path / "hub" / "models--org--model"
    folder = repo / "snapshots" / COMMIT
    for part in (folder, repo / "refs", repo / "blobs"):
        part.mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    found = snapshot_download(REPO, cache_dir=tmp_path / "hub", local_files_only=True)
    assert Path(found) == folder
    return folder


def test_a_finished_download_is_at_hand(snapshot: Path, tmp_path: Path) -> None:
    assert at_hand(profile(), {"HF_HOME": str(tmp_path)})
    assert at_hand(profile(draft_model=str(snapshot)), {"HF_HUB_CACHE": str(tmp_path / "hub")})
    assert not at_hand(profile(draft_model="org/other"), {"HF_HOME": str(tmp_path)})
    assert not at_hand(profile(), {"HF_HOME": str(tmp_path / "elsewhere")})
    assert not at_hand(profile(command=["serve", "{port}"]), {"HF_HOME": str(tmp_path)})


@pytest.mark.parametrize("missing", ["config.json", "tokenizer_config.json", "model.safetensors"])
def test_an_unfinished_one_is_not(snapshot: Path, tmp_path: Path, missing: str) -> None:
    (snapshot / missing).unlink()
    assert not at_hand(profile(), {"HF_HOME": str(tmp_path)})


def test_a_file_on_its_way_says_that_there_is_more_to_come(snapshot: Path, tmp_path: Path) -> None:
    (snapshot.parent.parent / "blobs" / "x.incomplete").touch()
    assert not at_hand(profile(), {"HF_HOME": str(tmp_path)})


@pytest.mark.parametrize("index", ['{"weight_map": {"a": "model-1.safetensors"}}', "no JSON", "[]"])
def test_weights_in_parts_are_at_hand_with_their_last_part(
    snapshot: Path, tmp_path: Path, index: str
) -> None:
    (snapshot / "model.safetensors.index.json").write_text(index)
    assert not at_hand(profile(), {"HF_HOME": str(tmp_path)})
    (snapshot / "model-1.safetensors").touch()
    assert at_hand(profile(), {"HF_HOME": str(tmp_path)}) == index.startswith("{")


def test_the_worker_is_told() -> None:
    assert environment({}, offline=True)["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in environment({}, offline=False)
    assert environment({"HF_HUB_OFFLINE": "1"}, offline=False)["HF_HUB_OFFLINE"] == "1"


def test_the_size_is_that_of_both_models_weights_and_unknown_if_one_is_not_here(
    snapshot: Path, tmp_path: Path
) -> None:
    env = {"HF_HOME": str(tmp_path)}
    (snapshot / "model.safetensors").write_bytes(b"x" * 1000)
    assert size(profile(), env) == 1000
    assert size(profile(draft_model=str(snapshot)), env) == 2000
    assert size(profile(draft_model="org/other"), env) is None
