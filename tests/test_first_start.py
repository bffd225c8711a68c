"""Which workers start with the daemon: what fits comfortably, by the sizes of models that are here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from draftd.first_start import FirstStart, cache_bytes, first_start, need
from draftd.hub import ModelConfig
from draftd.profiles import Profile, ProfileSet
from draftd.protocol import HEADROOM

GB = 10**9
CONFIG = {
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "hidden_size": 2048,
    "max_position_embeddings": 32768,
}
CACHE = 2 * 2 * 36 * 2 * 128 * 16384  # 0.6 GB


def model(folder: Path, size: int, config: object = CONFIG) -> str:
    """A model whose weights seem to have `size` bytes: the file is a hole."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("wb") as weights:
        weights.truncate(size)
    return str(folder)


@pytest.fixture
def presets(tmp_path: Path) -> ProfileSet:
    """Three profiles of one model of 2 GB, and one that sleeps."""
    path = model(tmp_path / "m", 2 * GB)
    names = {"balanced": True, "fast": True, "max": True, "other": False}
    return ProfileSet({name: Profile(name=name, model=path, autostart=own) for name, own in names.items()})


def begin(given: ProfileSet, share: int, **changed: object) -> FirstStart:
    options: dict[str, object] = {"start": "auto", "default": "fast", "share_engine": False} | changed
    return first_start(given, memory_share=lambda: share, **options)  # type: ignore[arg-type]


def starting(begun: FirstStart) -> list[str]:
    return [name for name, profile in begun.profiles.profiles.items() if profile.autostart]


NEED = 2 * GB + CACHE + HEADROOM
ALL = ["balanced", "fast", "max"]


@pytest.mark.fault(103)
def test_only_the_default_starts_unless_all_fit_comfortably(presets: ProfileSet) -> None:
    assert need(presets.profiles["fast"]) == NEED
    room = int(3 * NEED / 0.75) + 1
    assert begin(presets, room) == FirstStart(presets)
    tight = begin(presets, room - 10)
    assert starting(tight) == ["fast"]
    [line] = tight.lines
    assert line == (
        "fast starts now, and the other 2 with their first requests: all would take 11.0 GB (balanced 3.7 GB, "
        "fast 3.7 GB, max 3.7 GB), and models may take 14.7 GB on this machine. 'draftd up --all' (start = \"all\" "
        "in draftd.toml) starts all. One worker can serve them all: --share-engine."
    )


def test_whoever_says_so_has_all_or_only_the_default(presets: ProfileSet) -> None:
    assert begin(presets, 1, start="all") == FirstStart(presets)
    only = begin(presets, 100 * GB, start="default")
    assert (starting(only), only.lines) == (["fast"], ())


def test_one_worker_for_all_of_them_starts(presets: ProfileSet) -> None:
    assert begin(presets, 1, share_engine=True) == FirstStart(presets)


def test_without_that_default_the_first_starts(presets: ProfileSet) -> None:
    assert starting(begin(presets, 1, default="nowhere")) == ["balanced"]
    aliased = {**presets.profiles, "max": presets.profiles["max"].model_copy(update={"aliases": ("m",)})}
    assert starting(begin(ProfileSet(aliased), 1, default="m")) == ["max"]


def test_what_is_not_here_has_no_size_and_only_the_default_is_downloaded(presets: ProfileSet) -> None:
    away = presets.profiles["max"].model_copy(update={"model": "org/nowhere"})
    begun = begin(ProfileSet({**presets.profiles, "max": away}), 1000 * GB)
    assert starting(begun) == ["fast"]
    assert "what max takes is not known before its models have been downloaded" in begun.lines[0]
    assert "--share-engine" not in begun.lines[0]


def test_other_servers_start_as_they_are_meant_to(presets: ProfileSet) -> None:
    foreign = Profile(name="foreign", model="m", command=("server", "{port}"))
    begun = begin(ProfileSet({"foreign": foreign, **presets.profiles}), 1)
    assert starting(begun) == ["foreign", "fast"]


def test_a_cache_is_that_of_the_models_context_and_of_a_draft_model_too(tmp_path: Path) -> None:
    short = ModelConfig(context_length=1000, layers=9, full_layers=2, kv_heads=3, head_size=4)
    assert cache_bytes(short) == 2 * 2 * 2 * 3 * 4 * 1000
    assert cache_bytes(ModelConfig()) == 0
    target, draft = model(tmp_path / "t", 2 * GB), model(tmp_path / "d", GB, {})
    both = Profile(name="a", model=target, draft_model=draft)
    assert need(both) == NEED + GB
