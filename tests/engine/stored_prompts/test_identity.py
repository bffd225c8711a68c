"""What stored prompts depend on: other weights, flags or versions are another identity."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from draftd.engine.stored_prompts import identity
from draftd.engine.stored_prompts.identity import identity_of

FLAGS: dict[str, Any] = {
    "kv_bits": None,
    "kv_group_size": 64,
    "quantized_kv_start": 0,
    "prefill_step_size": 512,
}


def model(folder: Path) -> str:
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("x")
        os.utime(folder / name, (1000, 1000))
    return str(folder)


@pytest.fixture
def key(tmp_path: Path) -> tuple[str, str, str]:
    """mlx_lm's key of a target model, an adapter and a draft model."""
    return model(tmp_path / "target"), model(tmp_path / "adapter"), model(tmp_path / "draft")


def of(key: tuple[str, str | None, str | None], **flags: Any) -> str:
    return identity_of(key, SimpleNamespace(**FLAGS | flags))


def test_it_stays_where_nothing_changes(key: tuple[str, str, str]) -> None:
    before = of(key)
    (Path(key[0]) / "README.md").write_text("no part of the weights")
    assert of(key) == before


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "another.safetensors"])
def test_a_file_of_each_model_that_changes_is_another_identity(
    key: tuple[str, str, str], part: int, name: str
) -> None:
    before, path = of(key), Path(key[part]) / name
    path.write_text("x")  # the same, at another time
    later = of(key)
    path.write_text("y")
    os.utime(path, (1000, 1000))  # another one, at the same time
    assert len({before, later, of(key)}) == 3


def test_weights_that_differ_at_their_end_only_are_others(key: tuple[str, str, str]) -> None:
    path, found = Path(key[0]) / "model.safetensors", set()
    for end in (b"a", b"b"):
        path.write_bytes(bytes(100_000) + end)
        os.utime(path, (1000, 1000))
        found.add(of(key))
    assert len(found) == 2


def test_without_an_adapter_or_a_draft_model_it_is_another_one(key: tuple[str, str, str]) -> None:
    target, adapter, draft = key
    keys = [
        key,
        (target, None, draft),
        (target, adapter, None),
        (target, draft, adapter),
        (target, None, None),
    ]
    assert len({of(one) for one in keys}) == len(keys)


@pytest.mark.parametrize(
    "flags", [{"kv_bits": 8}, {"kv_group_size": 32}, {"quantized_kv_start": 9}, {"prefill_step_size": 64}]
)
def test_a_flag_that_changes_what_is_kept_is_another_identity(
    key: tuple[str, str, str], flags: dict[str, int]
) -> None:
    assert of(key, **flags) != of(key)


def test_another_version_is_another_identity(
    key: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = of(key)
    monkeypatch.setattr(identity, "version", lambda name: "9.9" if name == "mlx-lm" else "1")
    of_mlx_lm = of(key)
    monkeypatch.setattr(identity, "_source", lambda module: b"changed")
    assert len({before, of_mlx_lm, of(key)}) == 3


@pytest.mark.parametrize(
    "name",
    [
        *("caches.chunked", "caches.recurrent", "caches.sliding"),
        *("caches.ragged", "caches.ragged_layers", "caches.ragged_pass", "caches.ragged_states"),
        "stored_prompts.layers",
    ],
)
def test_code_of_ours_that_changes_is_another_identity(
    key: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = of(key)

    def changed(module: Any) -> bytes:
        return b"changed" if module.__name__.endswith(f".{name}") else source(module)

    source = identity._source
    monkeypatch.setattr(identity, "_source", changed)
    assert of(key) != before


def test_a_model_that_is_not_here_has_none(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="nowhere"):
        of((str(tmp_path / "nowhere"), None, None))
