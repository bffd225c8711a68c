"""plan: from what is wanted and what runs to actions, which may be interrupted at any point."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.profile_tables import HealthPolicy, Limits, RequestDefaults, RestartPolicy, ServerFlags
from draftd.profiles import Profile
from draftd.sharing import Group, groups
from draftd.workers.command import fingerprint
from draftd.workers.plan import Action, Add, Remove, Replace, Update, plan

BASE = Profile(name="fast", model="org/target", draft_model="org/draft", num_draft_tokens=3)

SAME_CHILD = {
    "num_draft_tokens": 7,
    "max_draft_tokens": 7,
    "drafters": ("lookup",),
    "share_engine": True,
    "aliases": ("quick",),
    "autostart": False,
    "idle_timeout": 60.0,
    "pin": True,
    "native": ("messages",),
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
    "adapter_path": "org/adapter",
    "port": 9000,
    "server": ServerFlags(prompt_cache_size=1),
}


def group(*profiles: Profile) -> Group:
    return Group(profiles[0], profiles)


@pytest.mark.parametrize(("key", "value"), SAME_CHILD.items())
def test_what_the_running_child_can_serve_is_an_update(key: str, value: object) -> None:
    changed = group(BASE.model_copy(update={key: value}))
    assert plan([changed], {"fast": group(BASE)}) == [Update("fast", changed)]


@pytest.mark.parametrize(("key", "value"), NEW_CHILD.items())
def test_what_needs_another_child_is_a_replacement(key: str, value: object) -> None:
    changed = group(BASE.model_copy(update={key: value}))
    assert plan([changed], {"fast": group(BASE)}) == [Replace("fast", changed)]


def test_every_key_of_a_profile_is_on_one_of_the_two_lists() -> None:
    assert (
        SAME_CHILD.keys() | NEW_CHILD.keys() | {"name", "command", "acceptance_pattern"}
        == Profile.model_fields.keys()
    )


def test_a_default_that_is_written_out_changes_nothing() -> None:
    written = Profile.model_validate(BASE.model_dump() | {"autostart": True, "limits": {"queue": 32}})
    assert plan([group(written)], {"fast": group(BASE)}) == []


def named(name: str, **changes: object) -> Profile:
    return BASE.model_copy(update={"name": name, **changes})


A, B, C = named("a"), named("b", num_draft_tokens=5), named("c", num_draft_tokens=7)
OTHER_A = named("a", model="org/other")


def test_removals_come_first_and_additions_last() -> None:
    running = {name: group(named(name)) for name in ("a", "b", "c", "d")}
    new, aliased, remodelled = named("0"), named("b", aliases=("x",)), named("c", model="org/other")
    wanted = [group(profile) for profile in (new, named("a"), aliased, remodelled)]
    assert plan(wanted, running) == [
        Remove("d"),
        Replace("c", group(remodelled)),
        Update("b", group(aliased)),
        Add(group(new)),
    ]


@pytest.mark.parametrize(
    ("wanted", "running", "actions"),
    [
        pytest.param([group(A, B, C)], {"a": group(A, B)}, [Update("a", group(A, B, C))], id="joins"),
        pytest.param([group(A)], {"a": group(A, B)}, [Update("a", group(A))], id="leaves for good"),
        pytest.param(
            [group(A), group(B)], {"a": group(A, B)}, [Update("a", group(A)), Add(group(B))], id="leaves"
        ),
        pytest.param(
            [group(A, B)],
            {"a": group(A), "b": group(B)},
            [Remove("b"), Update("a", group(A, B))],
            id="comes together",
        ),
        pytest.param(
            [group(A, B, C)],
            {"b": group(B, C)},
            [Update("b", Group(B, (A, B, C)))],
            id="one comes before the host",
        ),
        pytest.param([group(B, C)], {"a": group(A, B, C)}, [Update("a", group(B, C))], id="the host is gone"),
        pytest.param(
            [group(OTHER_A), group(B, C)],
            {"a": group(A, B, C)},
            [Update("a", group(B, C)), Add(group(OTHER_A))],
            id="the host gets other weights",
        ),
        pytest.param(
            [group(A, B)],
            {"a": group(OTHER_A), "b": group(B)},
            [Remove("a"), Update("b", Group(B, (A, B)))],
            id="the child that fits is kept",
        ),
    ],
)
def test_a_child_that_fits_is_kept_whoever_comes_or_goes(
    wanted: list[Group], running: dict[str, Group], actions: list[Action]
) -> None:
    assert plan(wanted, running) == actions


changes = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["org/one", "org/two"]),
        "aliases": st.sampled_from([(), ("x",), ("y",)]),
        "port": st.sampled_from([None, None, 9000]),
        "share_engine": st.booleans(),
    }
)


@st.composite
def group_lists(draw: st.DrawFn) -> list[Group]:
    parts = draw(st.dictionaries(st.sampled_from("abcdef"), changes))
    return groups({name: named(name, **change) for name, change in parts.items()}, share=False)


def carried_out(actions: list[Action], running: dict[str, Group]) -> dict[str, Group]:
    """What runs after `actions`, each of which must be possible in its turn."""
    after = dict(running)
    for action in actions:
        match action:
            case Remove(name):
                del after[name]
            case Add(group):
                assert group.name not in after
                after[group.name] = group
            case Replace(name, group) | Update(name, group):
                old = after.pop(name)
                assert group.name not in after
                assert group.name == name or name not in group.names
                same = fingerprint(old.host) == fingerprint(group.host)
                assert same == isinstance(action, Update)
                after[group.name] = group
    return after


@given(group_lists(), group_lists(), group_lists(), st.integers(0, 12))
def test_a_plan_cut_short_anywhere_and_made_again_leads_to_the_same_end(
    first: list[Group], second: list[Group], wanted: list[Group], done: int
) -> None:
    running = carried_out(plan(second, before := carried_out(plan(first, {}), {})), before)
    whole = plan(wanted, running)
    halfway = carried_out(whole[:done], running)
    rest = plan(wanted, halfway)
    assert rest == whole[done:]
    end = carried_out(rest, halfway)
    assert {one.members for one in end.values()} == {one.members for one in wanted}
    assert all(one.name == name for name, one in end.items())
    assert plan(wanted, end) == []
