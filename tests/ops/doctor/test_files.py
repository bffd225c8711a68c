"""doctor_files: models in folders and in the hub's cache, their caches by the installed mlx_lm, their tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from draftd.demo import DRAFT, TARGET
from draftd.ops.doctor.facts import Model
from draftd.ops.doctor.files import compare, read_model


def made(folder: Path, config: dict[str, Any] | None = None, **files: object) -> Path:
    """A model's folder; `files` by name, with '__' for the dots."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "qwen2"}))
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_the_demo_pair_is_whole_can_draft_and_has_one_vocabulary() -> None:
    target, draft = read_model(str(TARGET)), read_model(str(DRAFT))
    for model, folder in ((target, TARGET), (draft, DRAFT)):
        assert (model.local, model.folder, model.missing, model.model_type) == (True, folder, (), "qwen2")
        assert (model.caches, model.window) == ("trimmable", None)
        assert model.size == (folder / "model.safetensors").stat().st_size
    compared = compare(target, draft)
    assert compared.differing == 0
    assert compared.size == json.loads((TARGET / "config.json").read_text())["vocab_size"]


@pytest.mark.parametrize(
    ("config", "caches", "window"),
    [
        ({"model_type": "llama"}, "trimmable", None),
        ({"model_type": "mistral"}, "trimmable", None),  # another name of llama
        ({"model_type": "qwen3"}, "trimmable", None),
        ({"model_type": "qwen3_next"}, "state", None),
        ({"model_type": "qwen3_5"}, "state", None),
        ({"model_type": "qwen3_5_moe"}, "state", None),  # borrows the model of qwen3_5
        ({"model_type": "mamba2"}, "state", None),
        ({"model_type": "falcon_mamba"}, "state", None),  # another name of mamba
        ({"model_type": "gemma3", "text_config": {"sliding_window": 1024}}, "trimmable", 1024),
        ({"model_type": "gpt_oss", "sliding_window": 128}, "trimmable", 128),
        ({"model_type": "qwen2", "sliding_window": 32768}, "trimmable", None),  # never used by mlx_lm
        ({"model_type": "no_such"}, "unsupported", None),
        ({}, "unknown", None),
        ({"model_type": ["odd"]}, "unknown", None),
    ],
)
def test_what_the_installed_mlx_lm_can_do_with_a_model_type(
    tmp_path: Path, config: dict[str, Any], caches: str, window: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = read_model(str(tmp_path))
    assert (found.caches, found.window) == (caches, window)


def test_what_is_missing_of_a_model_is_named(tmp_path: Path) -> None:
    assert read_model(str(tmp_path / "none")) == Model(str(tmp_path / "none"), local=True)
    (tmp_path / "empty").mkdir()
    assert read_model(str(tmp_path / "empty")).missing == ("config.json", "model.safetensors")
    index = {
        "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}
    }
    half = made(tmp_path / "half", model__safetensors__index__json=index)
    (half / "model-1.safetensors").write_text("12345")
    found = read_model(str(half))
    assert (found.missing, found.size) == (("model-2.safetensors",), 5)


def test_a_model_in_the_hubs_cache_is_found_and_one_that_is_not_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--some--model"
    made(repo / "snapshots" / "abc", model__safetensors="1234")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    found = read_model("some/model")
    assert (found.local, found.folder, found.size) == (False, repo / "snapshots" / "abc", 4)
    monkeypatch.setattr("draftd.ops.doctor.files._at_the_hub", lambda name: (77, f"asked for {name}"))
    other = read_model("some/other")
    assert (other.folder, other.size, other.refused) == (None, 77, "asked for some/other")


def test_a_name_that_the_hub_cannot_have_is_refused_without_asking() -> None:
    assert read_model("not a name").refused == "the hub has no such model, or it is private"


BPE = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "<end>"}]}


@pytest.mark.parametrize(
    ("other", "differing", "size"),
    [
        (BPE, 0, 3),
        ({"model": {"vocab": [["a", -1.0], ["b", -2.0], ["<end>", 0]]}}, 0, 3),  # unigram
        ({"model": {"vocab": {"a": 1, "b": 0}}, "added_tokens": [{"id": 2, "content": "<end>"}]}, 2, 3),
        ({"model": {"vocab": {"a": 0, "b": 1, "c": 3}}}, 2, 4),
        ({"model": {}}, None, 0),
        ("no JSON", None, 0),
    ],
)
def test_vocabularies_are_compared_number_by_number(
    tmp_path: Path, other: object, differing: int | None, size: int
) -> None:
    target = read_model(str(made(tmp_path / "target", tokenizer__json=BPE)))
    draft = read_model(str(made(tmp_path / "draft", tokenizer__json=other)))
    compared = compare(target, draft)
    assert (compared.differing, compared.size) == (differing, size)
    assert (compared.target, compared.draft) == (target.name, draft.name)
