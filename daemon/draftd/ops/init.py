"""Copies what came with draftd to the user's config folder, to be edited there. Edited files are left alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic.fields import FieldInfo

from draftd.errors import ConfigError
from draftd.files import read_bytes

Outcome = Literal["new", "same", "edited"]
KINDS = {"profiles": "*.toml", "prompts": "*.txt"}


@dataclass(frozen=True, slots=True)
class Copy:
    """One file to copy. `outcome` says what is there now: nothing, the same text, or another one."""

    source: Path
    target: Path
    outcome: Outcome


def plan_copies(shipped: dict[str, Path], config: Path) -> list[Copy]:
    """What is to be copied from the `shipped` folder of each kind into `config`. Changes nothing."""
    found = []
    for kind, pattern in KINDS.items():
        for source in sorted(shipped[kind].glob(pattern)):
            target = config / kind / source.name
            found.append(Copy(source, target, _outcome(source, target)))
    return found


def settings_text(fields: Mapping[str, FieldInfo]) -> str:
    """A settings file with every setting, its meaning and its default, all of them commented out."""
    lines = [
        "# The settings of draftd. Remove a '#' and change the value: 'draftd up' reads them when it starts.\n"
    ]
    for name, field in fields.items():
        value = field.get_default(call_default_factory=True)
        default = f'{name} = ""  # not set' if value is None else f"{name} = {_toml(value)}"
        lines.append(f"# {field.description}\n# {default}\n")
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, Path):
        return json.dumps(str(value), ensure_ascii=False)
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def write_settings(file: Path, text: str) -> str:
    """Write the settings file unless there is one; returns in words what was done. Raises ConfigError."""
    if file.exists():
        return "exists already"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    return "written: every setting with its default, commented out"


def _outcome(source: Path, target: Path) -> Outcome:
    if not target.exists():
        return "new"
    try:
        return "same" if read_bytes(target) == read_bytes(source) else "edited"
    except OSError:  # whatever it is, it is the user's
        return "edited"


def carry_out(copy: Copy, *, force: bool) -> str:
    """Copy a file, an edited one only with `force` and beside a backup; returns in words what was done.

    Raises ConfigError.
    """
    if copy.outcome == "same" or (copy.outcome == "edited" and not force):
        return "exists already" if copy.outcome == "same" else "kept: you edited it (--force replaces it)"
    try:
        copy.target.parent.mkdir(parents=True, exist_ok=True)
        if copy.outcome == "edited":
            copy.target.replace(copy.target.with_name(f"{copy.target.name}.bak"))
        copy.target.write_bytes(copy.source.read_bytes())
    except OSError as error:
        raise ConfigError(f"{copy.target} cannot be written: {error.strerror}") from error
    return "copied" if copy.outcome == "new" else f"replaced; yours is {copy.target.name}.bak"
