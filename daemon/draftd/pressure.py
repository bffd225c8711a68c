"""How short a machine is of memory. Pure."""

from enum import IntEnum


class Pressure(IntEnum):
    """In macOS's own numbers."""

    NORMAL = 1
    WARNING = 2
    CRITICAL = 4
