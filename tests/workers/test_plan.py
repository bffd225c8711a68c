"""plan: from what is wanted and what runs to actions that may be cut short anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.profile_tables import HealthPolicy, Limits, RequestDefaults, RestartPolicy, ServerFlags
from daemon.profiles import Profile
from daemon.workers.command import fingerprint
from daemon.workers.plan import Action, Add, Remove, Replace, Update, plan

BASE = Profile(name="fast", model="org/target", draft_model="org/draft", num_draft_tokens=3)

SAME_CHILD = {
    "aliases": ("quick",),
    "autostart": False,
    "idle_timeout": 60.0,
    "system_prompt": "terse",
    "system_prompt_mode": "replace",
    "defaults": RequestDefaults(temperature=0.2),
    "limits": Limits(queue=1),
    "restart": RestartPolicy(max_failures=2),
    "health": HealthPolicy(interval=9),
}
NEW_CHILD = {
    "model": "org/other",
    "draft_model": "org/other-draft",
    "num_draft_tokens": 7,
    "adapter_path": "org/adapter",
    "port": 9000,
    "server": ServerFlags(prompt_cache_size=1),
}


def one(profile: Profile) -> dict[str, Profile]:
    return {profile.name: profile}


@pytest.mark.parametrize(("key", "value"), SAME_CHILD.items())
def test_what_the_running_child_can_serve_is_an_update(key: str, value: object) -> None:
    changed = BASE.model_copy(update={key: value})
    assert plan(one(changed), one(BASE)) == [Update(changed)]


@pytest.mark.parametrize(("key", "value"), NEW_CHILD.items())
def test_what_needs_another_child_is_a_replacement(key: str, value: object) -> None:
    changed = BASE.model_copy(update={key: value})
    assert plan(one(changed), one(BASE)) == [Replace(changed)]


def test_every_key_of_a_profile_is_on_one_of_the_two_lists() -> None:
    assert SAME_CHILD.keys() | NEW_CHILD.keys() | {"name", "command"} == Profile.model_fields.keys()


def test_a_default_that_is_written_out_changes_nothing() -> None:
    written = Profile.model_validate(BASE.model_dump() | {"autostart": True, "limits": {"queue": 32}})
    assert plan(one(written), one(BASE)) == []


def test_removals_come_first_and_additions_last() -> None:
    def named(name: str, **changes: object) -> Profile:
        return BASE.model_copy(update={"name": name, **changes})

    running = {name: named(name) for name in ("a", "b", "c", "d")}
    new, aliased, remodelled = named("0"), named("b", aliases=("x",)), named("c", model="org/other")
    wanted = {"0": new, "a": named("a"), "b": aliased, "c": remodelled}
    assert plan(wanted, running) == [Remove("d"), Replace(remodelled), Update(aliased), Add(new)]


models = st.sampled_from(["org/one", "org/two"])
aliases = st.sampled_from([(), ("x",), ("y",)])
changes = st.fixed_dictionaries({"model": models, "aliases": aliases, "port": st.sampled_from([None, 9000])})


@st.composite
def profile_sets(draw: st.DrawFn) -> dict[str, Profile]:
    parts = draw(st.dictionaries(st.sampled_from("abcde"), changes))
    return {name: BASE.model_copy(update={"name": name, **change}) for name, change in parts.items()}


def carried_out(actions: list[Action], running: dict[str, Profile]) -> dict[str, Profile]:
    """What runs after `actions`; each must be possible where it stands."""
    after = dict(running)
    for action in actions:
        match action:
            case Remove(name):
                del after[name]
            case Add(profile):
                assert profile.name not in after
                after[profile.name] = profile
            case Replace(profile) | Update(profile):
                same = fingerprint(after[profile.name]) == fingerprint(profile)
                assert same == isinstance(action, Update)
                after[profile.name] = profile
    return after


@given(profile_sets(), profile_sets(), st.integers(0, 10))
def test_a_plan_cut_short_anywhere_and_made_again_leads_to_the_same_end(
    wanted: dict[str, Profile], running: dict[str, Profile], done: int
) -> None:
    whole = plan(wanted, running)
    halfway = carried_out(whole[:done], running)
    rest = plan(wanted, halfway)
    assert rest == whole[done:]
    assert carried_out(rest, halfway) == wanted
    assert plan(wanted, wanted) == []
