"""How short of memory a machine is. Pure."""

from enum import IntEnum


class Pressure(IntEnum):
    """The levels of memory pressure, by macOS's own numbers."""

    NORMAL = 1
    WARNING = 2
    CRITICAL = 4
