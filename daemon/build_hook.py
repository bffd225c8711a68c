"""Refuses to build draftd for an Intel Python on a Mac, in one sentence.

mlx has no wheels for it, and what an installer says of that is long and names no way out. Installers ask for the
metadata before they look for any wheel, and a hook for metadata is asked then; it is here for that alone.
"""

from __future__ import annotations

import platform
import sys
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

REFUSAL = (
    "draftd: this Python is built for Intel, and mlx runs on Apple silicon only: take one that is built for arm64, "
    "as by 'uv tool install --python cpython-3.12-macos-aarch64 .'"
)


class RefuseIntel(MetadataHookInterface):
    """Changes nothing of the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        if sys.platform == "darwin" and platform.machine() != "arm64":
            sys.exit(REFUSAL)
