"""Faults of profiles and settings that only show in comparison: to each other, or to what is on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from draftd.errors import ConfigError, Problem
from draftd.files import read_text
from draftd.groups import contradiction
from draftd.hub import read_model
from draftd.machine_memory import pressure
from draftd.ops.splitting import refusals
from draftd.profile_files import PATH_KEYS
from draftd.profiles import Profile, ProfileSet
from draftd.settings import Settings
from draftd.settings_file import source_of
from draftd.tls import served, verifying
from draftd.toml_lines import line_of


def missing_folders(folder: Path, found: ProfileSet) -> Iterator[Problem]:
    """The models of profiles that are named by a path at which there is no folder."""
    for profile in found.profiles.values():
        if profile.command:
            continue
        for key in PATH_KEYS:
            path = getattr(profile, key)
            if path and path.startswith("/") and not os.path.isdir(path):
                what = "is a file, not a folder" if os.path.exists(path) else "there is no such folder"
                yield _in_file(folder, profile, key, f"{key}: {path}: {what}")


def unsplit(folder: Path, found: ProfileSet) -> Iterator[Problem]:
    """The models that cannot be split over the ranks of their profiles."""
    for profile in found.profiles.values():
        if profile.distributed:
            for reason in refusals(profile, read_model(profile.model)):
                yield _in_file(folder, profile, "distributed", f"distributed: {reason}")


def _in_file(folder: Path, profile: Profile, key: str, reason: str) -> Problem:
    file = folder / f"{profile.name}.toml"
    try:
        return Problem(file, line_of(read_text(file), (key,)), reason)
    except (OSError, UnicodeDecodeError):  # the file has another name than the profile
        return Problem(folder, None, f"{profile.name}: {reason}")


def setting_faults(settings: Settings, found: ProfileSet) -> Iterator[Problem]:
    """Settings that name what is not among these profiles, or not on this machine."""
    yield from unknown_default(settings, found)
    yield from _groups(settings, found)
    for path in settings.cache_preload:
        try:
            read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            yield source_of("cache_preload", f"cache_preload: {path} cannot be read: {reason}")
    if settings.tls_cert is not None:
        try:
            served(settings.tls_cert, settings.tls_key)
        except ConfigError as error:
            yield source_of(str(error).partition(":")[0], str(error))
    named = [("peers", peer.ca_file) for peer in settings.peers]
    for setting, file in (*named, ("discovery_ca_file", settings.discovery_ca_file)):
        try:
            if file is not None:
                verifying(file)
        except ConfigError as error:
            yield source_of(setting, f"{setting}: {error}")
    source = settings.memory_pressure
    if isinstance(source, Path) and pressure(source) is None:
        reason = (
            f"memory_pressure: {source} cannot be read, or does not have the form of Linux's pressure files"
        )
        yield source_of("memory_pressure", reason)


def _groups(settings: Settings, found: ProfileSet) -> Iterator[Problem]:
    for key, lists in (("together", settings.groups_together), ("apart", settings.groups_apart)):
        for name in sorted({name for names in lists for name in names} - found.profiles.keys()):
            there = ", ".join(found.profiles)
            reason = f"groups_{key}: there is no profile '{name}'; there are: {there}"
            yield source_of(f"groups_{key}", reason)
    if pair := contradiction(settings.groups()):
        reason = f"groups_apart: {pair[0]} and {pair[1]} are in one list of groups_together as well"
        yield source_of("groups_apart", reason)


def unknown_default(settings: Settings, found: ProfileSet) -> Iterator[Problem]:
    """The setting `default_profile`, if it was set and names none of the profiles."""
    if "default_profile" not in settings.model_fields_set:
        return
    names = {name for one in found.profiles.values() for name in (one.name, *one.aliases)}
    if settings.default_profile not in names:
        there = ", ".join(found.profiles)
        reason = f"default_profile: there is no profile '{settings.default_profile}'; there are: {there}"
        yield source_of("default_profile", reason)
