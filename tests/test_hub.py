"""models: how much a model can attend to, from its own config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from draftd.demo import TARGET
from draftd.hub import CONTEXT, context_length, is_local


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({}, CONTEXT),
        ({"max_position_embeddings": "many"}, CONTEXT),
        ({"max_position_embeddings": 0}, CONTEXT),
        ([], CONTEXT),
    ],
    ids=str,
)
def test_a_folders_config_says_it(tmp_path: Path, config: object, expected: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_length(str(tmp_path)) == expected


def test_a_folder_without_a_readable_config_gets_the_usual(tmp_path: Path) -> None:
    assert context_length(str(tmp_path)) == CONTEXT
    (tmp_path / "config.json").write_text("{")
    assert context_length(str(tmp_path)) == CONTEXT
    assert context_length("no:name of/any/hub") == CONTEXT


def test_a_downloaded_model_is_found_in_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert context_length("some/model") == CONTEXT
    model = tmp_path / "models--some--model"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc")
    (model / "snapshots" / "abc").mkdir(parents=True)
    (model / "snapshots" / "abc" / "config.json").write_text('{"max_position_embeddings": 1234}')
    assert context_length("some/model") == 1234


def test_what_is_local_is_what_mlx_lm_takes_for_a_folder(tmp_path: Path) -> None:
    assert is_local(str(TARGET))
    assert is_local("/missing/folder")
    assert not is_local("mlx-community/Some-Model-4bit")
