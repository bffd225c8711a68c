"""Tests that measure time have the machine to themselves, and get their turn."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path

from tests.turns import turn

LIMIT = 30.0  # seconds


def test_who_wants_to_be_alone_is_next_and_is_alone(tmp_path: Path) -> None:
    order: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def alone() -> None:
        with turn(tmp_path, fcntl.LOCK_EX):
            inside.set()
            go_on.wait(LIMIT)
            order.append("alone")

    def together() -> None:
        with turn(tmp_path, fcntl.LOCK_SH):
            order.append("together")

    threads = [threading.Thread(target=alone), threading.Thread(target=together)]
    with turn(tmp_path, fcntl.LOCK_SH):
        threads[0].start()
        deadline = time.monotonic() + LIMIT
        while _is_free(tmp_path / "door"):
            assert time.monotonic() < deadline
        threads[1].start()
        assert not inside.is_set()
    assert inside.wait(LIMIT)
    assert not _is_free(tmp_path / "room")
    go_on.set()
    for thread in threads:
        thread.join(LIMIT)
    assert order == ["alone", "together"]


def test_others_share_the_room(tmp_path: Path) -> None:
    with turn(tmp_path, fcntl.LOCK_SH), turn(tmp_path, fcntl.LOCK_SH):
        assert not _is_free(tmp_path / "room")


def _is_free(lock: Path) -> bool:
    """Whether nobody holds it."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
