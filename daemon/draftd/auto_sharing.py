"""Which profiles share a worker where nobody has said so: those that could, if separate ones would not fit well.

This is `share_engine = "auto"`. Separate workers answer side by side, each with its own queue; they are kept where
memory allows. What counts are the profiles that could share, even those that only a request starts, and all others
that start by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from draftd.first_start import COMFORTABLE, FirstStart, Start, first_start, gb, need
from draftd.profiles import Profile, ProfileSet
from draftd.sharing import Group, groups

Share = bool | Literal["auto"]


def shared_where_needed(given: ProfileSet, share: Share, memory_share: Callable[[], int]) -> ProfileSet:
    """The profiles, with `share_engine` set in those that should share; `sharing` tells people what was decided, ""
    if there was nothing to decide. `memory_share` gives the bytes that all workers may take; it is asked only where
    needed.
    """
    if share != "auto":
        return given
    ours = {name: one for name, one in given.profiles.items() if not one.command and one.share_engine is None}
    sets = [group for group in groups(ours, share=True) if len(group.members) > 1]
    if not sets:
        return given
    apart = [member for group in sets for member in group.members]
    others = [profile for profile in _others(given, sets) if profile.autostart]
    sizes = {profile.name: need(profile) for profile in (*apart, *others)}
    if None in sizes.values():
        name = next(name for name, size in sizes.items() if size is None)
        why = f"what {name} takes is not known before its models have been downloaded ('draftd pull')"
        return replace(given, sharing=f"{_named(sets)} have a worker each: {why}")
    known = {name: size or 0 for name, size in sizes.items()}
    total, whole = sum(known.values()), memory_share()
    together = total - sum(known[member.name] for group in sets for member in group.members[1:])
    beside = f" ({', '.join(one.name for one in others)} counted in)" if others else ""
    figures = f"{gb(total)}, or {gb(together)} shared, of the {gb(whole)} that models may have{beside}"
    if total > COMFORTABLE * whole:
        return _shared(given, sets, f"separate ones would not fit comfortably: {figures}")
    return replace(given, sharing=f"{_named(sets)} have a worker each, which fits comfortably: {figures}")


def beginning(
    given: ProfileSet, *, start: Start, default: str, share_engine: Share, memory_share: Callable[[], int]
) -> FirstStart:
    """Decide who shares a worker, and then which workers start with the daemon: see `first_start`."""
    shared = shared_where_needed(given, share_engine, memory_share)
    return first_start(
        shared, start=start, default=default, share_engine=share_engine is True, memory_share=memory_share
    )


def _shared(given: ProfileSet, sets: Sequence[Group], why: str) -> ProfileSet:
    names = {name for group in sets for name in group.names}
    profiles = {
        name: profile.model_copy(update={"share_engine": True}) if name in names else profile
        for name, profile in given.profiles.items()
    }
    return ProfileSet(profiles, given.prompts, f"{_named(sets)} share one worker and its queue, as {why}")


def _others(given: ProfileSet, sets: Sequence[Group]) -> Iterator[Profile]:
    """The host profile of each other worker of ours."""
    names = {name for group in sets for name in group.names}
    rest = {name: one for name, one in given.profiles.items() if name not in names and not one.command}
    return (group.host for group in groups(rest, share=False))


def _named(sets: Sequence[Group]) -> str:
    return "; ".join(", ".join(group.names) for group in sets)
