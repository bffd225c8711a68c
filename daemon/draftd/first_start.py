"""Which workers start with the daemon: all that are meant to if they fit comfortably, else the default profile's.

Three copies of a model where two fit make a Mac swap, or worse. A worker that is not started at first starts with
its first request, as a profile with `autostart = false` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from draftd.hub import ModelConfig, read_model
from draftd.profiles import Profile, ProfileSet
from draftd.protocol import HEADROOM
from draftd.sharing import Group, groups

COMFORTABLE = 0.75  # of what all workers may take: the rest is for long contexts and cached prompts
CONTEXT = 16 * 1024  # tokens of context that are allowed for, or the model's whole context if that is less
BYTES_PER_NUMBER = 2  # in a cache that is not quantized

Start = Literal["auto", "all", "default"]


@dataclass(frozen=True, slots=True)
class FirstStart:
    """The profiles, with `autostart` only in those that should start now; `lines` tell people why the others that
    were meant to start do not.
    """

    profiles: ProfileSet
    lines: tuple[str, ...] = ()


def first_start(
    given: ProfileSet, *, start: Start, default: str, share_engine: bool, memory_share: Callable[[], int]
) -> FirstStart:
    """Decide for these profiles. `default` is a name or alias; `memory_share` gives the bytes that all workers may
    take, and is asked only where that decides.
    """
    groups_now = groups(given.profiles, share=share_engine)
    meant = [group for group in groups_now if group.autostart and not group.host.command]
    if start == "all" or len(meant) < 2:
        return FirstStart(given)
    first = next((group for group in meant if _has(group, default)), meant[0])
    if start == "default":
        return FirstStart(_only(given, first, meant))
    reason = why_not_all(meant, memory_share())
    return (
        FirstStart(_only(given, first, meant), (_line(first, meant, reason),))
        if reason
        else FirstStart(given)
    )


def why_not_all(meant: Sequence[Group], share: int) -> str:
    """Why these workers should not all start, where they may take `share` bytes together; "" if they may."""
    sizes = {group.name: need(group.host) for group in meant}
    known = [size for size in sizes.values() if size is not None]
    if len(known) < len(sizes):
        name = next(name for name, size in sizes.items() if size is None)
        return f"what {name} takes is not known before its models have been downloaded ('draftd pull')"
    if sum(known) <= COMFORTABLE * share:
        return ""
    each = ", ".join(f"{name} {gb(size)}" for name, size in sizes.items() if size)
    return f"all would take {gb(sum(known))} ({each}), and models may take {gb(share)} on this machine"


def _line(first: Group, meant: Sequence[Group], reason: str) -> str:
    one = len({profile.models for group in meant for profile in group.members}) == 1
    shared = " One worker can serve them all: --share-engine." if one else ""
    return (
        f"{first.name} starts now, and the other {len(meant) - 1} with their first requests: {reason}. "
        f"'draftd up --all' (start = \"all\" in draftd.toml) starts all.{shared}"
    )


def need(profile: Profile, environ: Mapping[str, str] = os.environ) -> int | None:
    """Bytes that a worker of this profile takes: weights, the caches of one context, and HEADROOM; None unless its
    models are on this machine.
    """
    models = [read_model(name, environ) for name in profile.models]
    if not all(model.weight_bytes for model in models):
        return None
    ranks = profile.distributed.ranks_here if profile.distributed else 1
    target, *draft = (model.weight_bytes + cache_bytes(model.config) for model in models)
    return ranks * HEADROOM + _part_here(profile, target) + sum(draft)


def weights_here(profile: Profile, environ: Mapping[str, str] = os.environ) -> int | None:
    """Bytes of weights that a worker of this profile has on this machine; None unless its models are here too."""
    sizes = [read_model(name, environ).weight_bytes for name in profile.models]
    return _part_here(profile, sizes[0]) + sum(sizes[1:]) if all(sizes) else None


def _part_here(profile: Profile, size: int) -> int:
    """The share of the target model's size that the ranks on this machine hold."""
    group = profile.distributed
    return size if group is None else size * group.ranks_here // group.size


def cache_bytes(config: ModelConfig) -> int:
    """Bytes of keys and values for a context; 0 if the config does not say. Windows and states are not counted."""
    size = (config.full_layers or 0) * (config.kv_heads or 0) * (config.head_size or 0)
    return 2 * BYTES_PER_NUMBER * size * min(config.context_length or CONTEXT, CONTEXT)


def _has(group: Group, name: str) -> bool:
    return any(name == member.name or name in member.aliases for member in group.members)


def _only(given: ProfileSet, first: Group, meant: Sequence[Group]) -> ProfileSet:
    asleep = {name for group in meant if group is not first for name in group.names}
    profiles = {
        name: profile.model_copy(update={"autostart": False}) if name in asleep else profile
        for name, profile in given.profiles.items()
    }
    return replace(given, profiles=profiles)


def gb(size: int) -> str:
    """A size in bytes, for people."""
    return f"{size / 1e9:.1f} GB"
