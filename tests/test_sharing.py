"""sharing: which profiles one worker serves."""

from __future__ import annotations

import pytest

from draftd.profile_tables import (
    Distributed,
    HealthPolicy,
    Limits,
    RequestDefaults,
    RestartPolicy,
    ServerFlags,
)
from draftd.profiles import Profile
from draftd.sharing import PER_REQUEST, Group, could_share, groups

BASE = Profile(name="a", model="org/target", draft_model="org/draft", num_draft_tokens=3)
TOGETHER = {
    "aliases": ("quick",),
    "autostart": False,
    "num_draft_tokens": 7,
    "max_draft_tokens": 7,
    "drafters": ("lookup",),
    "system_prompt": "terse",
    "system_prompt_mode": "replace",
    "defaults": RequestDefaults(temperature=0.2),
    "share_engine": True,
    "native": ("messages",),
}
APART = {
    "pin": True,
    "model": "org/other",
    "draft_model": "org/other-draft",
    "adapter_path": "org/adapter",
    "port": 9000,
    "idle_timeout": 60.0,
    "command": ("serve", "{port}"),
    "acceptance_pattern": "(?P<accepted>[0-9]+)/(?P<proposed>[0-9]+)",
    "server": ServerFlags(prompt_cache_size=1),
    "limits": Limits(queue=1),
    "restart": RestartPolicy(max_failures=2),
    "health": HealthPolicy(interval=9),
    "distributed": Distributed(ranks=2),
}


def by_worker(*profiles: Profile, share: bool = True) -> list[tuple[str, ...]]:
    return [group.names for group in groups({p.name: p for p in profiles}, share=share)]


@pytest.mark.parametrize(("key", "value"), TOGETHER.items())
def test_what_differs_per_request_only_is_served_by_one_worker(key: str, value: object) -> None:
    other = BASE.model_copy(update={"name": "b", key: value})
    assert by_worker(other, BASE) == [("a", "b")]


@pytest.mark.parametrize(("key", "value"), APART.items())
def test_what_differs_in_anything_else_is_not(key: str, value: object) -> None:
    other = BASE.model_copy(update={"name": "b", key: value})
    assert by_worker(other, BASE) == [("a",), ("b",)]


def test_every_key_of_a_profile_is_on_one_of_the_two_lists() -> None:
    assert TOGETHER.keys() | {"name"} == PER_REQUEST
    assert PER_REQUEST | APART.keys() == Profile.model_fields.keys()


@pytest.mark.parametrize(
    ("setting", "of_a", "of_b", "together"),
    [
        (False, None, None, False),
        (True, None, None, True),
        (False, True, True, True),
        (False, True, None, False),
        (True, None, False, False),
        (True, True, None, True),
    ],
)
def test_a_profile_decides_for_itself_before_the_setting(
    setting: bool, of_a: bool | None, of_b: bool | None, together: bool
) -> None:
    a = BASE.model_copy(update={"share_engine": of_a})
    b = BASE.model_copy(update={"name": "b", "share_engine": of_b})
    assert by_worker(a, b, share=setting) == ([("a", "b")] if together else [("a",), ("b",)])


def test_the_worker_of_a_group_starts_with_the_daemon_if_one_of_them_does() -> None:
    asleep = [BASE.model_copy(update={"name": name, "autostart": False}) for name in "bc"]
    assert not Group(asleep[0], tuple(asleep)).autostart
    assert Group(BASE, (BASE, *asleep)).autostart


def test_workers_that_start_by_themselves_and_could_be_one_are_found() -> None:
    def named(name: str, **changes: object) -> Profile:
        return BASE.model_copy(update={"name": name, **changes})

    pair = named("a", share_engine=True), named("b", share_engine=True)
    apart = named("c"), named("d", autostart=False), named("e", share_engine=False)
    foreign = named("f", command=("serve", "{port}")), named("g", command=("serve", "{port}"))
    [found] = could_share([*pair, *apart, *foreign], share=False)
    assert [group.names for group in found] == [("a", "b"), ("c",)]
    assert could_share([*pair, *apart, *foreign], share=True) == []
    assert could_share(pair, share=False) == []
