"""Who shares a worker where nobody has said it: by the sizes of models that are here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from draftd.auto_sharing import beginning, shared_where_needed
from draftd.profiles import Profile, ProfileSet
from draftd.sharing import groups
from tests.test_first_start import NEED, model

GB = 10**9


@pytest.fixture
def given(tmp_path: Path) -> ProfileSet:
    """Three profiles of one model of 2 GB, of which one sleeps, and one of another model."""
    path, other = model(tmp_path / "m", 2 * GB), model(tmp_path / "n", 2 * GB)
    made = [Profile(name="fast", model=path), Profile(name="max", model=path)]
    made += [Profile(name="deep", model=path, autostart=False), Profile(name="other", model=other)]
    return ProfileSet({profile.name: profile for profile in made}, {"p": "text"})


def decided(given: ProfileSet, whole: int, share: bool = False) -> tuple[list[tuple[str, ...]], str]:
    """The workers' profiles, and what is told."""
    found = shared_where_needed(given, "auto", lambda: whole)
    assert found.prompts == given.prompts
    return sorted(group.names for group in groups(found.profiles, share=share)), found.sharing


ROOM = int(4 * NEED / 0.75) + 1
APART = [("deep",), ("fast",), ("max",), ("other",)]


def test_they_share_where_separate_ones_would_not_fit_comfortably(given: ProfileSet) -> None:
    workers, told = decided(given, ROOM)
    assert workers == APART
    assert told == (
        "deep, fast, max have a worker each, which fits comfortably: 14.7 GB, or 7.4 GB shared, "
        "of the 19.6 GB that models may have (other counted in)"
    )
    workers, told = decided(given, ROOM - 10)
    assert workers == [("deep", "fast", "max"), ("other",)]
    assert told == (
        "deep, fast, max share one worker and its queue, as separate ones would not fit comfortably: 14.7 GB, "
        "or 7.4 GB shared, of the 19.6 GB that models may have (other counted in)"
    )


def test_who_has_said_it_is_left_alone(given: ProfileSet) -> None:
    fast = given.profiles["fast"].model_copy(update={"share_engine": False})
    workers, _ = decided(replace(given, profiles={**given.profiles, "fast": fast}), 1)
    assert workers == [("deep", "max"), ("fast",), ("other",)]
    for said in (True, False):
        assert shared_where_needed(given, said, lambda: 1) is given


def test_nothing_is_told_where_nobody_could_share(given: ProfileSet) -> None:
    two = replace(given, profiles={name: given.profiles[name] for name in ("fast", "other")})
    assert decided(two, 1) == ([("fast",), ("other",)], "")


def test_what_nobody_knows_the_size_of_stays_apart(given: ProfileSet) -> None:
    absent = {name: Profile(name=name, model="org/nowhere") for name in ("a", "b")}
    workers, told = decided(replace(given, profiles=absent), 1)
    assert workers == [("a",), ("b",)]
    assert "not known before its models have been downloaded" in told


def test_all_start_that_share_a_worker_which_fits(given: ProfileSet) -> None:
    begun = beginning(
        given, start="auto", default="fast", share_engine="auto", memory_share=lambda: int(2.8 * NEED)
    )
    starting = [name for name, profile in begun.profiles.profiles.items() if profile.autostart]
    assert (starting, begun.lines) == (["fast", "max", "other"], ())
    assert begun.profiles.sharing
