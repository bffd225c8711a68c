"""Ports for workers: consecutive from a base, skipping what is taken."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from draftd.sockets import is_free_port

HIGHEST = 65535


class PortBook:
    """Which worker has which port. A worker keeps its port for its next child as long as it stays free."""

    def __init__(self, base: int, is_free: Callable[[int], bool] | None = None) -> None:
        self._base = base
        self._is_free = is_free or is_free_port
        self._taken: dict[Hashable, int] = {}
        self._reserved: dict[Hashable, int] = {}

    def reserve(self, owner: Hashable, port: int | None) -> None:
        """Keep `port`, which a profile asks for, from being given to others; None ends that."""
        if port is None:
            self._reserved.pop(owner, None)
        else:
            self._reserved[owner] = port

    def take(self, owner: Hashable) -> tuple[int, list[int]]:
        """A free port for `owner`, and the busy ports that were skipped to find it.

        Raises OSError if no port is free.
        """
        others = {
            port for book in (self._taken, self._reserved) for other, port in book.items() if other != owner
        }
        fixed = self._reserved.get(owner)
        wanted = fixed or self._taken.get(owner)
        first = [wanted] if wanted is not None else []
        skipped: list[int] = []
        for port in (*first, *range(self._base, HIGHEST + 1)):
            if port in skipped or (port in others and port != fixed):
                continue  # silently: it is one of ours, and was not asked for
            if port not in others and self._is_free(port):
                self._taken[owner] = port
                return port, skipped
            skipped.append(port)
        raise OSError(f"no port is free from {self._base} upwards")

    def release(self, owner: Hashable) -> None:
        """The worker is gone for good."""
        self._taken.pop(owner, None)
        self._reserved.pop(owner, None)
