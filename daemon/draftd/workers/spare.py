"""The warm spare: an engine that has imported all that it needs, and waits for its flags. Rules for its use. Pure.

1.  There is one at most. It is made after an engine's start, when no worker loads or waits to, and none does
    QUIET seconds later either: requests that waited for the worker come first.
2.  A start takes it only if it is the engine's, if the spare has finished importing, and if the environment is
    the same: libraries read theirs (HF_HUB_OFFLINE, for one) while they are imported.
3.  A start that does not take it ends it if it is still importing, as it would slow the start down, and if the
    start was the engine's: then a spare in another environment is what will be wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from draftd.workers import command

QUIET = 2.0
TAKE_LIMIT = 1.0  # seconds in which a spare has to answer; the start is a cold one if it does not


class Use(Enum):
    """What a start makes of the spare."""

    TAKE = auto()
    KEEP = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class SpareStatus:
    """The spare now. `memory_bytes` is its resident size, None if it is just ending."""

    pid: int
    warm: bool
    memory_bytes: int | None


def use_of(made_for: Mapping[str, str], argv: Sequence[str], env: Mapping[str, str], *, warm: bool) -> Use:
    """What becomes of a spare that was made for an environment (rules 2 and 3)."""
    if flags_of(argv) is None:
        return Use.KEEP if warm else Use.END
    return Use.TAKE if warm and made_for == env else Use.END


def flags_of(argv: Sequence[str]) -> list[str] | None:
    """The flags, if this is the engine's command line."""
    first = len(command.ENGINE)
    return list(argv[first:]) if list(argv[:first]) == command.ENGINE else None
