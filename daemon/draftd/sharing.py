"""Which profiles share a worker. Pure.

Profiles that differ only in what the daemon does for each request can be served by one child: the three presets
of a pair of models by one copy of its weights. They share if they ask for it and all else is equal, so that none
of them gets a limit, a restart rule or a port from another's file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from draftd.profiles import Profile

# These say what the daemon does with a request, or at its own start. All others are about the child.
PER_REQUEST = frozenset({
    "name", "aliases", "num_draft_tokens", "max_draft_tokens", "drafters", "system_prompt", "system_prompt_mode",
    "defaults", "autostart", "share_engine", "native",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """The profiles of one worker, in the order of their names. The `host` gives the worker its name: for its log,
    for its messages, and for what is reported once per worker.
    """

    host: Profile
    members: tuple[Profile, ...]

    @property
    def name(self) -> str:
        """The worker's name."""
        return self.host.name

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names."""
        return tuple(member.name for member in self.members)

    @property
    def autostart(self) -> bool:
        """Whether one of them starts with the daemon; then all of them do."""
        return any(member.autostart for member in self.members)

    def others(self, name: str) -> tuple[str, ...]:
        """Who shares the worker with `name`."""
        return tuple(other for other in self.names if other != name)

    def hosted_by(self, names: Iterable[str]) -> Group:
        """The same profiles, hosted by the first of them whose name is in `names`."""
        wanted = set(names)
        host = next((member for member in self.members if member.name in wanted), self.host)
        return Group(host, self.members)


def groups(profiles: Mapping[str, Profile], *, share: bool) -> list[Group]:
    """The profiles by worker; `share` is for those that do not say whether they share."""
    found: dict[str, list[Profile]] = {}
    for name in sorted(profiles):
        profile = profiles[name]
        shares = share if profile.share_engine is None else profile.share_engine
        # No name holds a brace: a profile by itself cannot be taken for those that share.
        found.setdefault(_key(profile) if shares else name, []).append(profile)
    return [Group(members[0], tuple(members)) for members in found.values()]


def _key(profile: Profile) -> str:
    """Equal for profiles that one child, kept by the same rules, can serve."""
    return profile.model_dump_json(exclude=set(PER_REQUEST))


def could_share(profiles: Iterable[Profile], *, share: bool) -> list[list[Group]]:
    """The workers of mlx_lm.server that start by themselves and could be one, if they shared their engine."""
    ours = {profile.name: profile for profile in profiles if not profile.command}
    now = [group for group in groups(ours, share=share) if group.autostart]
    together = (set(group.names) for group in groups(ours, share=True))
    found = ([group for group in now if group.name in names] for names in together)
    return [apart for apart in found if len(apart) > 1]
