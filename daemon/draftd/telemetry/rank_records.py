"""What the launcher of a group reports about its ranks, once a second. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from draftd.telemetry.figures import MAX_BYTES, MAX_COUNT, count, optional

MAX_RANKS = 64
MAX_HOST = 300  # characters


@dataclass(frozen=True, slots=True)
class Rank:
    """One rank of a group: `host` is "" on this machine; `memory` in bytes; `silent`: seconds without news."""

    rank: int
    host: str
    pid: int | None
    memory: int
    silent: float


@dataclass(frozen=True, slots=True)
class Ranks:
    """The state of a group's ranks."""

    ranks: tuple[Rank, ...]


def ranks_of(said: Mapping[str, object]) -> Ranks:
    """The record; raises ValueError for anything missing or impossible."""
    told = said.get("ranks")
    if not isinstance(told, list) or len(told) > MAX_RANKS:
        raise ValueError("ranks is not a list of them")
    return Ranks(tuple(map(_rank, told)))


def _rank(value: object) -> Rank:
    if not isinstance(value, dict):
        raise ValueError("a rank is not an object")
    host, silent = value.get("host"), value.get("silent")
    if not isinstance(host, str) or isinstance(silent, bool) or not isinstance(silent, int | float):
        raise ValueError("a rank has no host, or does not say for how long it is silent")
    if not 0 <= silent <= MAX_COUNT:
        raise ValueError("not a time")
    number, pid = count(value.get("rank")), optional(value.get("pid"))
    return Rank(number, host[:MAX_HOST], pid, count(value.get("memory"), MAX_BYTES), float(silent))
