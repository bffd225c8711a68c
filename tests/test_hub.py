"""hub: models in folders and in the hub's cache, complete or not, and what their configs say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from draftd.demo import DRAFT, TARGET
from draftd.hub import (
    NEVER_DRAFTED,
    ModelConfig,
    ModelOnDisk,
    are_here,
    cache_dir,
    is_local,
    parse_config,
    read_model,
    read_vocabulary,
    weight_bytes,
)
from tests.harness import closed

REPOSITORY = "org/model"
COMMIT = "a" * 40
INDEX = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A finished download, as huggingface_hub itself finds it."""
    from huggingface_hub import (
        snapshot_download,  # late: it takes a quarter of a second in each process that collects
    )

    repository = tmp_path / "hub" / "models--org--model"
    folder = repository / "snapshots" / COMMIT
    for part in (folder, repository / "refs", repository / "blobs"):
        part.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    found = snapshot_download(REPOSITORY, cache_dir=tmp_path / "hub", local_files_only=True)
    assert Path(found) == folder
    return folder


# --- a finished download ------------------------------------------------------------------------------------


def test_a_finished_download_is_here(snapshot: Path, tmp_path: Path) -> None:
    env = {"HF_HOME": str(tmp_path)}
    found = read_model(REPOSITORY, env)
    assert (found.local, found.folder, found.missing, found.weight_bytes) == (False, snapshot, (), 2)
    assert are_here([REPOSITORY], env)
    assert are_here([REPOSITORY, str(snapshot)], {"HF_HUB_CACHE": str(tmp_path / "hub")})
    assert not are_here([REPOSITORY, "org/other"], env)
    assert not are_here([REPOSITORY], {"HF_HOME": str(tmp_path / "elsewhere")})
    assert not are_here([], env)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer_config.json", "model.safetensors"])
def test_an_unfinished_one_is_not(snapshot: Path, tmp_path: Path, missing: str) -> None:
    (snapshot / missing).unlink()
    found = read_model(REPOSITORY, {"HF_HOME": str(tmp_path)})
    assert (found.is_here, found.missing) == (False, (missing,))


def test_a_file_on_its_way_says_that_there_is_more_to_come(snapshot: Path, tmp_path: Path) -> None:
    (snapshot.parent.parent / "blobs" / "x.incomplete").touch()
    found = read_model(REPOSITORY, {"HF_HOME": str(tmp_path)})
    assert (found.is_here, found.missing) == (False, ("a file that is still on its way",))


def test_weights_in_parts_are_here_with_their_last_part(snapshot: Path, tmp_path: Path) -> None:
    env = {"HF_HOME": str(tmp_path)}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(INDEX))
    (snapshot / "model-1.safetensors").touch()
    assert read_model(REPOSITORY, env).missing == ("model-2.safetensors",)
    (snapshot / "model-2.safetensors").touch()
    assert are_here([REPOSITORY], env)


@pytest.mark.parametrize("index", ["no JSON", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_that_cannot_be_read_leaves_a_download_in_doubt(
    snapshot: Path, tmp_path: Path, index: str
) -> None:
    (snapshot / "model.safetensors.index.json").write_text(index)
    found = read_model(REPOSITORY, {"HF_HOME": str(tmp_path)})
    assert (found.is_here, found.missing) == (False, ("model.safetensors.index.json",))


def test_a_part_without_an_index_is_not_the_whole(snapshot: Path, tmp_path: Path) -> None:
    (snapshot / "model.safetensors").rename(snapshot / "model-00001-of-00002.safetensors")
    assert read_model(REPOSITORY, {"HF_HOME": str(tmp_path)}).missing == ("model.safetensors",)


def test_the_weights_of_several_models_are_unknown_if_one_is_not_here(snapshot: Path, tmp_path: Path) -> None:
    env = {"HF_HOME": str(tmp_path)}
    (snapshot / "model.safetensors").write_bytes(b"x" * 1000)
    assert weight_bytes([REPOSITORY], env) == 1000
    assert weight_bytes([REPOSITORY, str(snapshot)], env) == 2000
    assert weight_bytes([REPOSITORY, "org/other"], env) is None


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"HF_HOME": "~/mine"},
        {"HF_HOME": "$HOME/mine"},
        {"XDG_CACHE_HOME": "/x"},
        {"HF_HUB_CACHE": "/y"},
        {"HF_HUB_CACHE": "$HOME/y", "HF_HOME": "/z"},
        {"HUGGINGFACE_HUB_CACHE": "/old"},
    ],
    ids=str,
)
def test_the_cache_is_where_huggingface_hub_has_it(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(key, raising=False)
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    code = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert str(cache_dir()) == done.stdout.strip()


# --- a folder -----------------------------------------------------------------------------------------------


def test_the_demo_pair_is_whole_and_its_configs_tell_what_it_is() -> None:
    for folder in (TARGET, DRAFT):
        found = read_model(str(folder))
        assert (found.local, found.folder, found.missing, found.is_here) == (True, folder, (), True)
        assert found.weight_bytes == (folder / "model.safetensors").stat().st_size
        assert len(read_vocabulary(folder)) == 6144
    assert read_model(str(TARGET)).config == ModelConfig(
        model_type="qwen2",
        context_length=32768,
        layers=2,
        full_layers=2,
        kv_heads=3,
        head_size=64,
    )


def test_what_a_folder_lacks_is_named_and_the_hub_would_not_bring_it(tmp_path: Path) -> None:
    assert read_model(str(tmp_path / "none")) == ModelOnDisk(str(tmp_path / "none"), local=True)
    assert not read_model(str(tmp_path / "none")).is_here
    (tmp_path / "empty").mkdir()
    empty = read_model(str(tmp_path / "empty"))
    assert (empty.missing, empty.is_here) == (("config.json", "model.safetensors"), True)
    half = tmp_path / "half"
    half.mkdir()
    (half / "config.json").write_text("{")
    (half / "model.safetensors.index.json").write_text(json.dumps(INDEX))
    (half / "model-1.safetensors").write_text("12345")
    found = read_model(str(half))
    assert (found.missing, found.weight_bytes) == (("model-2.safetensors",), 5)
    assert found.config == ModelConfig()


@pytest.mark.fault(73)
@pytest.mark.parametrize("kind", ["pipe", "link to a device", "folder"])
@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "tokenizer_config.json", "model.safetensors.index.json", "main"],
)
def test_what_is_no_file_is_not_there_and_nothing_waits_for_it(
    snapshot: Path, tmp_path: Path, kind: str, name: str
) -> None:
    place = snapshot / name if name != "main" else snapshot.parent.parent / "refs" / "main"
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero")
    found = read_model(REPOSITORY, {"HF_HOME": str(tmp_path)})
    needed = name != "model.safetensors.index.json"
    assert found.is_here != needed
    assert found.config == ModelConfig()
    (snapshot / "tokenizer.json").unlink(missing_ok=True)
    os.mkfifo(snapshot / "tokenizer.json")
    assert read_vocabulary(snapshot) == {}


@pytest.mark.fault(173)
def test_what_may_not_be_looked_at_is_not_there(snapshot: Path, tmp_path: Path) -> None:
    with closed(snapshot):
        assert not read_model(REPOSITORY, {"HF_HOME": str(tmp_path)}).is_here
        assert read_model(str(snapshot)).weight_bytes == 0
    assert read_model(REPOSITORY, {"HF_HOME": str(tmp_path)}).is_here


@pytest.mark.parametrize("index", [{"a": 5}, {"a": None, "b": "x"}, {"a": ["x"]}, {"a": "\0"}])
def test_an_index_of_odd_names_is_of_files_that_are_not_there(
    snapshot: Path, tmp_path: Path, index: object
) -> None:
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert not read_model(REPOSITORY, {"HF_HOME": str(tmp_path)}).is_here


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"model": 5},
        {"model": {"vocab": 5}},
        {"model": {"vocab": [[]]}},
        {"added_tokens": [5]},
        {"added_tokens": [{}]},
    ],
)
def test_a_tokenizer_that_cannot_be_understood_has_no_vocabulary(tmp_path: Path, tokenizer: object) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert read_vocabulary(tmp_path) == {}


@pytest.mark.parametrize("name", ["no:name of/any/hub", "not a name", "x" * 5000])
def test_a_name_that_nobody_can_have_is_not_here(name: str) -> None:
    assert read_model(name) == ModelOnDisk(name, local=False)


def test_what_is_local_is_what_mlx_lm_takes_for_a_folder() -> None:
    assert is_local(str(TARGET))
    assert is_local("/missing/folder")
    assert not is_local("mlx-community/Some-Model-4bit")


# --- config.json --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"max_position_embeddings": 4096, "text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"max_position_embeddings": 4096, "text_config": None}, 4096),
        ({"n_positions": 2048}, 2048),
        ({}, None),
        ({"max_position_embeddings": "many"}, None),
        ({"max_position_embeddings": True}, None),
        ({"max_position_embeddings": 0}, None),
    ],
    ids=str,
)
def test_the_context_length(config: dict[str, Any], expected: int | None) -> None:
    assert parse_config(config).context_length == expected


def test_heads_and_sizes_are_found_under_their_several_names() -> None:
    gpt = parse_config({"n_head": 12, "n_embd": 768, "n_layer": 6, "vocab_size": 50257})
    assert (gpt.kv_heads, gpt.head_size) == (12, 64)
    assert gpt.layers == 6
    text = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_size": 2560}
    gemma = parse_config({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", **text}})
    assert (gemma.model_type, gemma.kv_heads, gemma.head_size) == ("gemma3", 4, 256)


@pytest.mark.parametrize(
    ("config", "full"),
    [
        ({}, 48),
        ({"sliding_window_pattern": 6}, 8),
        ({"full_attention_interval": 4}, 12),
        ({"layer_types": ["linear_attention", "full_attention", "sliding_attention"]}, 1),
        ({"layer_types": []}, 48),
    ],
    ids=str,
)
def test_the_layers_whose_cache_grows_with_the_context(config: dict[str, Any], full: int) -> None:
    assert parse_config({"num_hidden_layers": 48} | config).full_layers == full
    assert parse_config({}).full_layers is None


@pytest.mark.real
def test_the_types_with_which_nothing_is_drafted_are_those_of_the_engine() -> None:
    from draftd.engine.generation.caches.sequence import INEXACT

    assert {f"mlx_lm.models.{name}" for name in NEVER_DRAFTED} == INEXACT.keys()


# --- tokenizer.json -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokenizer", "vocabulary"),
    [
        (
            {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "<end>"}]},
            {0: "a", 1: "b", 2: "<end>"},
        ),
        ({"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}, {0: "a", 1: "b"}),  # unigram
        ({"model": {}}, {}),
        ([], {}),
    ],
    ids=str,
)
def test_the_vocabulary_is_that_of_the_tokenizers_file(
    tmp_path: Path, tokenizer: object, vocabulary: dict[int, str]
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert read_vocabulary(tmp_path) == vocabulary
    assert read_vocabulary(tmp_path / "none") == {}
