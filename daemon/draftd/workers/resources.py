"""The load gate: at most so many workers load their models at the same time, first come, first served."""

from __future__ import annotations

from collections.abc import Callable


class LoadGate:
    """Hands out `slots` by calling back; a holder or a waiter is known by its key."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._holders: set[object] = set()
        self._waiting: dict[object, Callable[[], None]] = {}  # in order of arrival
        self._at_rest: list[Callable[[], None]] = []

    @property
    def idle(self) -> bool:
        """Whether nobody loads, and nobody waits to."""
        return not self._holders and not self._waiting

    def when_idle(self, call: Callable[[], None]) -> None:
        """Call once, as soon as the gate is idle."""
        self._at_rest.append(call)
        self._tell_idle()

    def acquire(self, key: object, granted: Callable[[], None]) -> None:
        """Call `granted` when a slot is free, at once or later. A key asks once until it releases."""
        self._waiting[key] = granted
        self._hand_out()

    def release(self, key: object) -> None:
        """Give the slot back, or leave the queue. Harmless for a key that has neither."""
        self._waiting.pop(key, None)
        self._holders.discard(key)
        self._hand_out()
        self._tell_idle()

    def _hand_out(self) -> None:
        while self._waiting and len(self._holders) < self._slots:
            key = next(iter(self._waiting))
            granted = self._waiting.pop(key)
            self._holders.add(key)
            granted()

    def _tell_idle(self) -> None:
        while self._at_rest and self.idle:
            self._at_rest.pop(0)()
