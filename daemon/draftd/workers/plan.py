"""What turns the running workers into those that the profiles ask for: an ordered list of actions.

Pure. Removals come first, so that their memory is on its way back before anything new loads. A plan that was only
partly carried out can be made again: it leads to the same end.

A running worker goes on as a group if it serves one of the group's members now. Where several could, the order is:
one whose child need not be replaced, then one that keeps its name, then the one with most of the members.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from draftd.sharing import Group
from draftd.workers.command import fingerprint


@dataclass(frozen=True, slots=True)
class Remove:
    """No group needs the worker `name` any more: drain it and end it."""

    name: str


@dataclass(frozen=True, slots=True)
class Replace:
    """The worker `name` goes on as `group`, with a new child."""

    name: str
    group: Group


@dataclass(frozen=True, slots=True)
class Update:
    """The worker `name` goes on as `group`, with the child it has: who shares it or its limits changed."""

    name: str
    group: Group


@dataclass(frozen=True, slots=True)
class Add:
    """A group without a worker."""

    group: Group


Action = Remove | Replace | Update | Add


def plan(wanted: Iterable[Group], running: Mapping[str, Group]) -> list[Action]:
    """The actions that turn `running` (what each worker serves now, by its name) into `wanted`."""
    wanted = list(wanted)
    kept = _matches(wanted, running)
    actions: list[Action] = [Remove(name) for name in running if name not in kept.values()]
    going_on = [
        (name, group.hosted_by([name]) if name in group.names else group.hosted_by(running[name].names))
        for group in wanted
        if (name := kept.get(group.name)) is not None
    ]
    changed = [(name, group) for name, group in going_on if group != running[name]]
    actions += [Replace(name, group) for name, group in changed if not _fits(group, running[name])]
    actions += [Update(name, group) for name, group in changed if _fits(group, running[name])]
    actions += [Add(group) for group in wanted if group.name not in kept]
    return actions


def _matches(wanted: Iterable[Group], running: Mapping[str, Group]) -> dict[str, str]:
    """Which worker goes on as which group, by the group's name before it has taken the worker's."""
    pairs = [
        ((_fits(group, old), name in group.names, len(common)), group.name, name)
        for group in wanted
        for name, old in running.items()
        if (common := set(group.names) & set(old.names))
    ]
    matches: dict[str, str] = {}
    for _, group_name, name in sorted(pairs, key=lambda pair: pair[0], reverse=True):
        if group_name not in matches and name not in matches.values():
            matches[group_name] = name
    return matches


def _fits(group: Group, old: Group) -> bool:
    return fingerprint(group.host) == fingerprint(old.host)
