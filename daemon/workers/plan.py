"""From the profiles that are wanted and the workers there are to an ordered list of actions.

Pure. Removals come first, so that their memory is on its way back before anything new loads; carrying out any
prefix of a plan and planning again leads to the same end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.profiles import Profile
from daemon.workers.command import fingerprint


@dataclass(frozen=True, slots=True)
class Remove:
    """The profile is gone: drain the worker and end it."""

    name: str


@dataclass(frozen=True, slots=True)
class Replace:
    """The child must be started anew for the new profile."""

    profile: Profile


@dataclass(frozen=True, slots=True)
class Update:
    """The running child can serve the new profile: only routing or limits changed."""

    profile: Profile


@dataclass(frozen=True, slots=True)
class Add:
    """A profile without a worker."""

    profile: Profile


Action = Remove | Replace | Update | Add


def plan(wanted: Mapping[str, Profile], running: Mapping[str, Profile]) -> list[Action]:
    """The actions that turn `running` (what each worker serves now) into `wanted`."""
    actions: list[Action] = [Remove(name) for name in running if name not in wanted]
    kept = [profile for name, profile in wanted.items() if name in running and profile != running[name]]
    changed = [profile for profile in kept if fingerprint(profile) != fingerprint(running[profile.name])]
    actions += [Replace(profile) for profile in changed]
    actions += [Update(profile) for profile in kept if profile not in changed]
    actions += [Add(profile) for name, profile in wanted.items() if name not in running]
    return actions
