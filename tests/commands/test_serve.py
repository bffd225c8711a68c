"""`draftd up`: what it says of workers that hold the same weights."""

from __future__ import annotations

from draftd.commands.serve import what_sharing_saves
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
        "3 workers hold the same weights: share_engine = true (--share-engine) serves a, b, c "
    )
    assert f"saves {2 * weights / 1e6:.0f} MB of weights" in line
    assert list(what_sharing_saves(profiles, share=True)) == []
    assert list(what_sharing_saves(profiles[:1], share=False)) == []


def test_the_size_of_weights_that_are_not_here_is_not_made_up() -> None:
    profiles = [Profile(name=name, model="org/nowhere") for name in "ab"]
    [line] = what_sharing_saves(profiles, share=False)
    assert line.rstrip().endswith("serves a, b by one of them, in one queue")
