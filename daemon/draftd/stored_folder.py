"""The folder of stored prompts as the daemon sees it: how many there are, and their bytes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from draftd.protocol import PROMPT_CACHE_SUFFIX


@dataclass(frozen=True, slots=True)
class FolderSize:
    """What all workers have stored."""

    files: int = 0
    bytes: int = 0


def folder_size(folder: Path) -> FolderSize:
    """Look at the files; a folder that does not exist, or cannot be read, has none. Files may vanish meanwhile."""
    sizes = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(PROMPT_CACHE_SUFFIX):
                with suppress(OSError):
                    sizes.append(entry.stat(follow_symlinks=False).st_size)
    return FolderSize(len(sizes), sum(sizes))
