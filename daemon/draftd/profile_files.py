"""Reads profiles and prompts from their folders: all files or none, and each fault with file, line and reason."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from draftd.errors import ConfigError, Problem
from draftd.files import MAX_CONFIG, looks, read_text
from draftd.hostfiles import with_hostfile
from draftd.profile_tables import Distributed, Table
from draftd.profiles import Profile, ProfileSet
from draftd.settings import Settings
from draftd.toml_lines import fault_of, joined, line_of, nul_in, read_toml, reason_of

PROFILES, PROMPTS = "[!.]*.toml", "[!.]*.txt"  # what editors leave beside a file begins with a dot
_TABLES = (
    {"": tuple(Profile.model_fields)}
    | {
        name: tuple(field.annotation.model_fields)
        for name, field in Profile.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Table)
    }
    | {"distributed": tuple(Distributed.model_fields)}
)
MAX_FAULTS = 50  # that are told of one file: each is looked for in its text
MIN_LIKENESS = 0.75  # of a misspelt key, where 1 is the same
PATH_KEYS = ("model", "draft_model", "adapter_path")  # where a value may be a path


def load_for(settings: Settings) -> ProfileSet:
    """The profiles that these settings name. There may be none if there are peers. Raises ConfigError."""
    return load_dir(settings.profiles_dir(), settings.prompt_dirs(), may_be_empty=settings.may_have_peers)


def load_dir(folder: Path, prompt_dirs: Sequence[Path], *, may_be_empty: bool = False) -> ProfileSet:
    """Read every *.toml of `folder`. Raises ConfigError with every problem found, and then takes none."""
    read = read_dir(folder, prompt_dirs)
    return accepted(folder, read, read.problems, may_be_empty=may_be_empty)


def accepted(folder: Path, read: Read, problems: Sequence[Problem], *, may_be_empty: bool) -> ProfileSet:
    """What was read of a folder. Raises ConfigError if there are `problems`, or if it is empty and may not be."""
    if problems:
        raise ConfigError(f"the profiles in {folder} are not valid", tuple(problems))
    if not read.valid.profiles and not may_be_empty:
        raise ConfigError(f"there is no profile (*.toml) in {folder}")
    return read.valid


@dataclass(frozen=True, slots=True)
class Read:
    """What is in a folder of profiles: those that are valid by themselves, the data of the other files by their
    names, as far as they are TOML, and every problem.
    """

    valid: ProfileSet
    broken: Mapping[str, Mapping[str, Any]]
    problems: tuple[Problem, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names and aliases of all, as far as they are known."""
        known = [name for one in self.valid.profiles.values() for name in (one.name, *one.aliases)]
        for name, data in self.broken.items():
            aliases = data.get("aliases")
            known += [name, *(map(str, aliases) if isinstance(aliases, list) else ())]
        return tuple(known)


def read_dir(folder: Path, prompt_dirs: Sequence[Path]) -> Read:
    """Read every *.toml of `folder`. Raises ConfigError only if it is no folder that can be read."""
    _check_folder(folder)
    problems: list[Problem] = []
    loaded: list[tuple[Path, str, Profile]] = []
    broken: dict[str, Mapping[str, Any]] = {}
    for path in _files(folder, PROFILES):
        try:
            broken[path.stem] = {}
            text = read_text(path, most=MAX_CONFIG)
            broken[path.stem] = _data(text)
            loaded.append((path, text, parse(path, text)))
            del broken[path.stem]
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            problems.append(Problem(path, line, "the file is not UTF-8 text"))
        except OSError as error:
            problems.append(Problem(path, None, f"cannot be read: {error.strerror}"))
        except ConfigError as error:
            problems.extend(error.problems)
    problems += _clashes(loaded)
    prompts = _read_prompts(loaded, prompt_dirs, problems)
    valid = ProfileSet({p.name: p for p in sorted((p for *_, p in loaded), key=lambda p: p.name)}, prompts)
    return Read(valid, broken, tuple(problems))


def _data(text: str) -> Mapping[str, Any]:
    """What a file says, nothing if it is no TOML."""
    try:
        return read_toml(text)
    except (ValueError, RecursionError):
        return {}


def _check_folder(path: Path) -> None:
    """Raises ConfigError if the files of a folder cannot be listed: `glob` would find none, without an error."""
    none = "'draftd up --demo' needs none"
    try:
        os.listdir(path)
    except NotADirectoryError:
        if path.suffix == ".toml":
            what = f"is a single profile; give its folder, {path.parent}, and the name '{path.stem}'"
            raise ConfigError(f"{path} {what}") from None
        raise ConfigError(f"the profiles folder {path} is not a folder; {none}") from None
    except FileNotFoundError:
        where = f" (it is a link to {path.readlink()})" if path.is_symlink() else ""
        raise ConfigError(f"the profiles folder {path} does not exist{where}; {none}") from None
    except OSError as error:
        raise ConfigError(f"the profiles folder {path} cannot be read: {error.strerror}") from None


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


def fingerprint(folders: Iterable[Path]) -> tuple[object, ...]:
    """What changes when a profile or prompt in `folders` does, be it edited, replaced, added, or removed.

    It goes by what each path leads to in the end: a folder may be swapped for another, a link be set anew (as
    Kubernetes and many installers do), or the file that a link leads to be edited, and no event in the watched
    folder would tell of it.
    """
    found: list[object] = []
    for folder in folders:
        with suppress(OSError):  # a disk that does not answer: who reads the profiles then is told
            for path in (*_files(folder, PROFILES), *_files(folder, PROMPTS)):
                found.extend(looks(path))
    return tuple(found)


def parse(path: Path, text: str) -> Profile:
    """One profile from the text of its file. Raises ConfigError with file, line and reason."""
    try:
        data = read_toml(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError("a profile is not valid", (Problem(path, *fault_of(text, error)),)) from error
    _refuse_nul(path, text, data)
    problems = []
    if isinstance(command := data.get("command"), list):
        data["command"] = [_at_home(part) for part in command]
    for key in (key for key in PATH_KEYS if key in data):
        try:
            data[key] = absolute_model(data[key], path.parent)
        except RuntimeError:
            reason = f"{key}: there is no user {Path(data[key]).parts[0]}"
            problems.append(Problem(path, line_of(text, (key,)), reason))
    if isinstance(group := data.get("distributed"), dict) and "hosts" in group:
        try:
            data["distributed"] = {**group, **with_hostfile(group, path.parent)}
        except ValueError as error:
            problems.append(
                Problem(path, line_of(text, ("distributed", "hosts")), f"distributed.hosts: {error}")
            )
            del data["distributed"]
    try:
        profile = Profile.model_validate({"name": path.stem, **data})
    except ValidationError as error:
        faults = joined(error.errors())
        problems += [_problem(path, text, detail) for detail in faults[:MAX_FAULTS]]
        if len(faults) > MAX_FAULTS:
            problems.append(Problem(path, None, f"and {len(faults) - MAX_FAULTS:,} faults more"))
    if problems:
        raise ConfigError("a profile is not valid", tuple(problems))
    return profile


def _refuse_nul(path: Path, text: str, data: dict[str, Any]) -> None:
    """What a request says may hold one; all else becomes an argument, a variable or a path. Raises ConfigError."""
    found = nul_in({key: value for key, value in data.items() if key != "defaults"})
    if found is not None:
        loc, reason = found
        key = ".".join(str(part) for part in loc if isinstance(part, str))
        said = f"{key}: {reason}" if key else reason
        raise ConfigError("a profile is not valid", (Problem(path, line_of(text, loc), said),))


def absolute_model(value: object, folder: Path) -> object:
    """A user's path, with './' and '../' from the profile's folder; any other value, as a hub name, stays."""
    if not isinstance(value, str) or "\0" in value:
        return value
    if value.startswith("~"):
        return str(Path(value).expanduser())
    if value in (".", "..") or value.startswith(("./", "../")):
        return str((folder / value).resolve())
    return value


def _at_home(part: object) -> object:
    """A part of a command, with '~' expanded as a shell would: no shell sees the command."""
    return os.path.expanduser(part) if isinstance(part, str) and part.startswith("~") else part


def _problem(path: Path, text: str, detail: dict[str, Any]) -> Problem:
    loc = detail["loc"]
    key = ".".join(str(part) for part in loc if isinstance(part, str))
    reason = reason_of(detail)
    if detail["type"] == "value_error":  # our own sentences begin with the key that they are about
        loc = (*loc, *reason.split(" ")[0].split("."))
    if detail["type"] == "extra_forbidden":
        reason += near_miss(loc)
    return Problem(path, line_of(text, loc), f"{key}: {reason}" if key else reason)


def near_miss(loc: Sequence[Any]) -> str:
    """What an unknown key may have meant, if that can be guessed: a key spelt like it, or its right table."""
    *tables, key = (str(part).replace("-", "_") for part in loc)
    here = ".".join(tables)
    likeness, table, meant = max(
        (difflib.SequenceMatcher(a=key, b=known).ratio() + (0.1 if table == here else 0.0), table, known)
        for table, keys in _TABLES.items()
        for known in keys
    )
    if likeness < MIN_LIKENESS:
        return ""
    if table == here:
        return f"; did you mean {meant}?"
    place = f"[{table}]" if table else "the top of the file, above every table"
    return f"; {meant} belongs in {place}" if meant == key else f"; did you mean {meant} in {place}?"


def _clashes(loaded: Sequence[tuple[Path, str, Profile]]) -> list[Problem]:
    """Names and aliases share one space, ports another: each may stand in one file only."""
    owner: dict[tuple[str, object], Path] = {}
    problems = []
    for path, text, profile in loaded:
        claims: list[tuple[str, object]] = [("name", profile.name)]
        claims += [("aliases", alias) for alias in profile.aliases]
        claims += [("port", profile.port)] if profile.port else []
        for key, value in claims:
            space = "port" if key == "port" else "name"
            first = owner.setdefault((space, value), path)
            if first is not path or (key == "aliases" and value == profile.name):
                reason = f"{key}: {value} is taken by {first.name}"
                problems.append(Problem(path, line_of(text, (key,)), reason))
    return [*problems, *_alike(loaded)]


def _alike(loaded: Iterable[tuple[Path, str, Profile]]) -> Iterator[Problem]:
    """Each name is also that of a log, and to macOS files whose names differ only in case are the same."""
    found: dict[str, tuple[str, Path]] = {}
    for path, text, profile in loaded:
        name, first = found.setdefault(profile.name.lower(), (profile.name, path))
        if name != profile.name:
            reason = (
                f"name: {profile.name} differs from {name} in {first.name} only in case; so would their logs"
            )
            yield Problem(path, line_of(text, ("name",)), reason)


def _read_prompts(
    loaded: Iterable[tuple[Path, str, Profile]], dirs: Sequence[Path], problems: list[Problem]
) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path, text, profile in loaded:
        name = profile.system_prompt
        if name is None or name in texts:
            continue
        try:
            texts[name] = read_prompt(name, dirs)
        except ConfigError as error:
            problems.append(Problem(path, line_of(text, ("system_prompt",)), f"system_prompt: {error}"))
    return texts


def read_prompt(name: str, dirs: Sequence[Path]) -> str:
    """The text of prompt `name` from the first of `dirs` that has it, without the line breaks at its end.

    A link out of its folder is refused: it could put any file of the user into every request. Raises ConfigError.
    """
    for folder in dirs:
        path = folder / f"{name}.txt"
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"{path} is a symbolic link out of its folder; put the text itself there")
        if path.exists() and not path.is_dir():
            return _prompt(path)
    looked = ", ".join(str(folder) for folder in dirs)
    raise ConfigError(f"there is no {name}.txt in {looked}")


def _prompt(path: Path) -> str:
    try:
        return read_text(path).rstrip("\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} cannot be read: it is not UTF-8 text") from error
