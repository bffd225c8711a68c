"""The prompts that profiles can use: where each comes from, and which profile uses it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from draftd.profile_files import PROMPTS, read_prompt
from draftd.profiles import Profile


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, and for each profile that uses it "NAME (mode)"."""

    name: str
    file: Path
    text: str
    used_by: tuple[str, ...]


def find_prompts(dirs: Sequence[Path], profiles: Iterable[Profile]) -> list[Prompt]:
    """Every prompt of `dirs` by name; of equal names that in the first folder counts, as it does for profiles.

    Raises ConfigError for one that cannot be read.
    """
    profiles = list(profiles)
    files: dict[str, Path] = {}
    for folder in dirs:
        for path in sorted(folder.glob(PROMPTS)):
            files.setdefault(path.stem, path)
    return [_prompt(name, path, profiles) for name, path in sorted(files.items())]


def _prompt(name: str, path: Path, profiles: Iterable[Profile]) -> Prompt:
    text = read_prompt(name, [path.parent])
    used = (f"{p.name} ({p.system_prompt_mode})" for p in profiles if p.system_prompt == name)
    return Prompt(name, path, text, tuple(used))
