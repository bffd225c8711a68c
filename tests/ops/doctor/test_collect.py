"""collect: what is compared and looked up beyond the files of a single model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from draftd.demo import DRAFT, TARGET
from draftd.hub import ModelOnDisk, read_model
from draftd.ops.doctor import collect as collecting
from draftd.ops.doctor.collect import collect, compare
from draftd.ops.doctor.facts import Download
from draftd.settings import load_settings

BPE = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "<end>"}]}


def made(folder: Path, tokenizer: object = BPE, model_type: str = "qwen2") -> ModelOnDisk:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return read_model(str(folder))


def test_the_demo_pair_has_one_vocabulary() -> None:
    compared = compare(read_model(str(TARGET)), read_model(str(DRAFT)))
    assert compared.differing == 0


@pytest.mark.parametrize(
    ("other", "differing", "size"),
    [
        (BPE, 0, 3),
        ({"model": {"vocab": {"a": 1, "b": 0}}, "added_tokens": [{"id": 2, "content": "<end>"}]}, 2, 3),
        ({"model": {"vocab": {"a": 0, "b": 1, "c": 3}}}, 2, 4),
        ({"model": {}}, None, 0),
        ("no JSON", None, 0),
    ],
)
def test_vocabularies_are_compared_id_by_id(
    tmp_path: Path, other: object, differing: int | None, size: int
) -> None:
    target, draft = made(tmp_path / "target"), made(tmp_path / "draft", other)
    compared = compare(target, draft)
    assert (compared.differing, compared.size) == (differing, size)
    assert (compared.target, compared.draft) == (target.name, draft.name)


def test_a_model_that_is_not_here_is_looked_up_at_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "folder", model_type="no_such")
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "a.toml").write_text('model = "some/other"\n')
    (profiles / "b.toml").write_text(
        f'model = "{tmp_path / "folder"}"\ndraft_model = "{tmp_path / "none"}"\n'
    )
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(collecting, "WATCHED", 0.0)
    monkeypatch.setattr(collecting, "size_at_hub", lambda name: (77, f"asked for {name}"))
    facts = collect(load_settings(profiles=profiles))
    assert facts.downloads == {"some/other": Download(77, "asked for some/other")}
    assert facts.unsupported == {"no_such"}
    assert [model.folder for model in facts.models.values()] == [None, tmp_path / "folder", None]
    assert (facts.hub_cache, facts.hub_cache_exists) == (tmp_path / "hub" / "hub", False)


@pytest.mark.fault(115)
def test_the_doctor_knows_what_models_may_have_and_which_workers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the daemon does: of two that do not fit beside each other, the default profile's alone."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(f'model = "{TARGET}"\n')
    monkeypatch.setenv("DRAFTD_DEFAULT_PROFILE", "b")
    monkeypatch.setattr(collecting, "WATCHED", 0.0)
    for share, starting in ((1, {"b"}), (10**12, {"a", "b"})):
        facts = collect(load_settings(profiles=tmp_path, memory_budget=share, share_engine=False))
        assert facts.memory_share == share
        assert facts.sharing == ""
        assert {profile.name for profile in facts.profiles if profile.autostart} == starting
    shared = collect(load_settings(profiles=tmp_path, memory_budget=1))
    assert shared.sharing.startswith("a, b share one worker and its queue, as separate ones would not fit")
    assert {profile.name for profile in shared.profiles if profile.autostart} == {"a", "b"}
