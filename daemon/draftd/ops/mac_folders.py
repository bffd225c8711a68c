"""Folders that a background agent cannot read on macOS: private ones, and those on disks not mounted yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

VOLUMES = Path("/Volumes")
# macOS asks the user before a program reads these; an agent that nobody sees gets EPERM instead.
PRIVATE = ("Desktop", "Documents", "Downloads", "Library/Mobile Documents", "Library/CloudStorage")
LOOK_AGAIN = 2.0  # seconds


def guarded(paths: Iterable[Path], home: Path) -> list[Path]:
    """Those of `paths` that an agent of launchd may not read until a person allows it."""
    folders = [*(home / name for name in PRIVATE), VOLUMES]
    return [path for path in dict.fromkeys(paths) if any(path.is_relative_to(folder) for folder in folders)]


def wait_for_volumes(
    paths: Iterable[Path],
    tell: Callable[[str], object],
    *,
    volumes: Path = VOLUMES,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Return when every disk that `paths` are on is mounted: at login an agent is started before they all are."""
    disks = {
        volumes / path.relative_to(volumes).parts[0] for path in paths if path.parent.is_relative_to(volumes)
    }
    told: set[Path] = set()
    while missing := {disk for disk in disks if not disk.exists()}:
        for disk in sorted(missing - told):
            tell(f"waiting for {disk}, which is not mounted yet")
        told |= missing
        sleep(LOOK_AGAIN)
