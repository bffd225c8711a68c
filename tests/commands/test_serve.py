"""`draftd up`: what it says of workers that hold the same weights, and what to type next."""

from __future__ import annotations

import sys

import pytest

from draftd.commands import serve
from draftd.commands.serve import _demo_loader, what_sharing_saves
from draftd.demo import DRAFT, TARGET
from draftd.profiles import Profile


def test_workers_that_could_be_one_are_named_with_the_weights_that_this_saves() -> None:
    profiles = [
        Profile(name=name, model=str(TARGET), draft_model=str(DRAFT), num_draft_tokens=length)
        for name, length in (("a", 3), ("b", 5), ("c", 7))
    ]
    weights = sum(path.stat().st_size for folder in (TARGET, DRAFT) for path in folder.glob("*.safetensors"))
    [line] = what_sharing_saves(profiles, share=False)
    assert line.startswith(
        "3 workers hold the same weights: with share_engine = true (--share-engine) one worker serves a, b, c "
    )
    assert f"saves {2 * weights / 1e6:.0f} MB of weights" in line
    assert list(what_sharing_saves(profiles, share=True)) == []
    assert list(what_sharing_saves(profiles[:1], share=False)) == []


def test_the_size_of_weights_that_are_not_here_is_not_made_up() -> None:
    profiles = [Profile(name=name, model="org/nowhere") for name in "ab"]
    [line] = what_sharing_saves(profiles, share=False)
    assert line.rstrip().endswith("one worker serves a, b in one queue")


@pytest.mark.parametrize(
    ("found", "started_by", "command"),
    [
        ("/usr/bin/draftd", "/usr/bin/draftd", "draftd"),
        (None, ".venv/bin/draftd", ".venv/bin/draftd"),
        (None, "/lib/draftd/__main__.py", f"{sys.executable} -m draftd"),
    ],
)
def test_what_to_type_next_is_what_the_users_shell_would_find(
    monkeypatch: pytest.MonkeyPatch, found: str | None, started_by: str, command: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: found)
    monkeypatch.setattr("sys.argv", [started_by, "up"])
    assert serve._command() == command


def test_the_demo_has_the_presets_and_no_other_shipped_profile() -> None:
    presets = [f"qwen2.5-3b-speculative-{name}" for name in ("auto", "balanced", "fast", "max")]
    profiles = _demo_loader([])().profiles
    assert list(profiles) == presets
    assert {profile.models for profile in profiles.values()} == {(str(TARGET), str(DRAFT))}
    assert list(_demo_loader(["fast"])().profiles) == [presets[2]]
