"""Faults of profiles and settings that only show in comparison: to each other, or to what is on this machine."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from draftd.errors import ConfigError, Problem
from draftd.files import read_text
from draftd.groups import contradiction
from draftd.hub import read_model
from draftd.machine_memory import pressure
from draftd.ops.splitting import refusals
from draftd.profile_files import PATH_KEYS, Read, absolute_model
from draftd.profiles import ProfileSet
from draftd.settings import Settings
from draftd.settings_file import source_of
from draftd.tls import served, verifying
from draftd.toml_lines import line_of


def all_faults(settings: Settings, folder: Path, read: Read) -> Iterator[Problem]:
    """All that is wrong with the profiles of a folder, and with the settings beside them, in no order."""
    yield from read.problems
    yield from missing_folders(folder, read)
    yield from setting_faults(settings, read.valid, read.names)
    yield from unsplit(folder, read.valid)


def missing_folders(folder: Path, read: Read) -> Iterator[Problem]:
    """The models of profiles that are named by a path at which there is no folder, those of broken files too."""
    valid = {
        one.name: {key: getattr(one, key) for key in ("command", *PATH_KEYS)}
        for one in read.valid.profiles.values()
    }
    for name, data in {**valid, **read.broken}.items():
        for key in () if data.get("command") else PATH_KEYS:
            path = _folder_of(data.get(key), folder)
            if path and not os.path.isdir(path):
                what = "is a file, not a folder" if os.path.exists(path) else "there is no such folder"
                yield _in_file(folder, name, key, f"{key}: {path}: {what}")


def _folder_of(model: object, folder: Path) -> str | None:
    """The path that a model is named by; None for a name of the hub, and for what is no name."""
    with suppress(RuntimeError):  # a user whom there is not, which is a fault of its own
        path = absolute_model(model, folder)
        if isinstance(path, str) and path.startswith("/") and "\0" not in path:
            return path
    return None


def unsplit(folder: Path, found: ProfileSet) -> Iterator[Problem]:
    """The models that cannot be split over the ranks of their profiles."""
    for profile in found.profiles.values():
        if profile.distributed:
            for reason in refusals(profile, read_model(profile.model)):
                yield _in_file(folder, profile.name, "distributed", f"distributed: {reason}")


def _in_file(folder: Path, name: str, key: str, reason: str) -> Problem:
    file = folder / f"{name}.toml"
    try:
        return Problem(file, line_of(read_text(file), (key,)), reason)
    except (OSError, UnicodeDecodeError):  # the file has another name than the profile
        return Problem(folder, None, f"{name}: {reason}")


def setting_faults(settings: Settings, found: ProfileSet, names: Collection[str] = ()) -> Iterator[Problem]:
    """Settings that name what is not among these profiles, or not on this machine. `names` are further ones that
    there are, in files that are not valid.
    """
    yield from unknown_default(settings, found, names)
    yield from _groups(settings, found, names)
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


def _groups(settings: Settings, found: ProfileSet, names: Collection[str]) -> Iterator[Problem]:
    for key, lists in (("together", settings.groups_together), ("apart", settings.groups_apart)):
        for name in sorted({name for some in lists for name in some} - found.profiles.keys() - {*names}):
            there = ", ".join(found.profiles)
            reason = f"groups_{key}: there is no profile '{name}'; there are: {there}"
            yield source_of(f"groups_{key}", reason)
    if pair := contradiction(settings.groups()):
        reason = f"groups_apart: {pair[0]} and {pair[1]} are in one list of groups_together as well"
        yield source_of("groups_apart", reason)


def unknown_default(settings: Settings, found: ProfileSet, others: Collection[str] = ()) -> Iterator[Problem]:
    """The setting `default_profile`, if it was set and names none of the profiles."""
    if "default_profile" not in settings.model_fields_set:
        return
    names = {name for one in found.profiles.values() for name in (one.name, *one.aliases)} | {*others}
    if settings.default_profile not in names:
        there = ", ".join(found.profiles)
        reason = f"default_profile: there is no profile '{settings.default_profile}'; there are: {there}"
        yield source_of("default_profile", reason)
