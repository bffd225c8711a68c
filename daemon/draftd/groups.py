"""Which models may be in memory together, as the user says. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import combinations

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Groups:
    """Lists of profiles. Of each list in `apart`, only one profile is in memory at a time. A profile in lists of
    `together` is in memory only with others of the same lists, and with those that are in none.
    """

    together: tuple[Names, ...] = ()
    apart: tuple[Names, ...] = ()

    @property
    def names(self) -> set[str]:
        """All profiles that are named."""
        return {name for names in (*self.together, *self.apart) for name in names}

    def exclude(self, ones: Collection[str], others: Collection[str]) -> bool:
        """Whether a worker of the profiles `ones` must not be in memory with one of the profiles `others`."""
        return any(self._excludes(one, other) for one in ones for other in others)

    def _excludes(self, one: str, other: str) -> bool:
        if any(one in names and other in names for names in self.apart):
            return True
        mine, its = ({names for names in self.together if name in names} for name in (one, other))
        return bool(mine and its) and not mine & its


def lists_of(text: str) -> tuple[Names, ...]:
    """Lists of names from a variable: "a, b; c, d"."""
    return tuple(tuple(part.replace(",", " ").split()) for part in text.split(";"))


def checked(lists: tuple[Names, ...], least: int) -> tuple[Names, ...]:
    """The lists again. Raises ValueError for one with fewer than `least` names, and for one with a name twice."""
    for names in lists:
        if len(set(names)) < len(names):
            raise ValueError(f"a name is in one list twice: {', '.join(names)}")
        if len(names) < least:
            raise ValueError(f"a list needs {least} names or more" if names else "a list is empty")
    return lists


def contradiction(groups: Groups) -> Names | None:
    """Two profiles that should be both together and apart; None if there are none."""
    apart = {frozenset(pair) for names in groups.apart for pair in combinations(names, 2)}
    return next((pair for pair in _pairs(groups.together) if frozenset(pair) in apart), None)


def _pairs(lists: Iterable[Names]) -> Iterable[Names]:
    return (pair for names in lists for pair in combinations(names, 2))
