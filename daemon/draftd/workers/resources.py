"""What workers compete for: ports, and places among those that may load at the same time."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from draftd.sockets import is_free_port

MAX_PORT = 65535


class PortBook:
    """Which worker has which port: consecutive ones from `base`, skipping those that are taken.

    A worker keeps its port for its next child as long as it stays free.
    """

    def __init__(self, base: int, is_free: Callable[[int], bool] | None = None) -> None:
        self._base = base
        self._is_free = is_free or is_free_port
        self._taken: dict[Hashable, int] = {}
        self._reserved: dict[Hashable, int] = {}

    def reserve(self, owner: Hashable, port: int | None) -> None:
        """Keep `port`, which a profile asks for, from being given to others; None frees it again."""
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
        for port in (*first, *range(self._base, MAX_PORT + 1)):
            if port in skipped or (port in others and port != fixed):
                continue  # not worth a note: it is one of ours, and was not asked for
            if port not in others and self._is_free(port):
                self._taken[owner] = port
                return port, skipped
            skipped.append(port)
        raise OSError(f"no port is free from {self._base} upwards")

    def release(self, owner: Hashable) -> None:
        """The worker is gone for good."""
        self._taken.pop(owner, None)
        self._reserved.pop(owner, None)


class LoadGate:
    """Lets `slots` workers load at once, first come, first served. Each that holds a slot or waits has a key."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._holders: dict[object, str] = {}  # the names of those that load, by their keys
        self._waiting: dict[object, tuple[str, Callable[[], None]]] = {}  # in order of arrival
        self._at_rest: list[Callable[[], None]] = []

    @property
    def idle(self) -> bool:
        """Whether nobody loads, and nobody waits to."""
        return not self._holders and not self._waiting

    def when_idle(self, call: Callable[[], None]) -> None:
        """Call once, as soon as the gate is idle."""
        self._at_rest.append(call)
        self._tell_idle()

    def ahead(self, key: object) -> list[str]:
        """Who loads or waits in front of `key`, by name."""
        waiting = list(self._waiting)
        before = waiting[: waiting.index(key)] if key in self._waiting else []
        loading = [name for other, name in self._holders.items() if other is not key]
        return [*loading, *(self._waiting[other][0] for other in before)]

    def acquire(self, key: object, granted: Callable[[], None], name: str = "") -> None:
        """Call `granted` when a slot is free, now or later. A key asks once until it releases.

        `name` is for people.
        """
        self._waiting[key] = name, granted
        self._hand_out()

    def release(self, key: object) -> None:
        """Give the slot back, or leave the queue. Harmless for a key that has neither."""
        self._waiting.pop(key, None)
        self._holders.pop(key, None)
        self._hand_out()
        self._tell_idle()

    def _hand_out(self) -> None:
        while self._waiting and len(self._holders) < self._slots:
            key = next(iter(self._waiting))
            name, granted = self._waiting.pop(key)
            self._holders[key] = name
            granted()

    def _tell_idle(self) -> None:
        while self._at_rest and self.idle:
            self._at_rest.pop(0)()
