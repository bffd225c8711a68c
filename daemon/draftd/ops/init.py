"""Copies what came with draftd to the user's config folder, to be edited there. An edited file is the user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from draftd.errors import ConfigError
from draftd.files import read_bytes

Outcome = Literal["new", "same", "edited"]
KINDS = {"profiles": "*.toml", "prompts": "*.txt"}


@dataclass(frozen=True, slots=True)
class Copy:
    """One file to copy. `outcome` says what is there already: nothing, the same text, or another one."""

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
        return "is there already" if copy.outcome == "same" else "kept: you edited it (--force replaces it)"
    try:
        copy.target.parent.mkdir(parents=True, exist_ok=True)
        if copy.outcome == "edited":
            copy.target.replace(copy.target.with_name(f"{copy.target.name}.bak"))
        copy.target.write_bytes(copy.source.read_bytes())
    except OSError as error:
        raise ConfigError(f"{copy.target} cannot be written: {error.strerror}") from error
    return "copied" if copy.outcome == "new" else f"replaced; yours is {copy.target.name}.bak"
