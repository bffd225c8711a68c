"""The requests that are open and the last that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from draftd.telemetry.journal import MAX_ENDED, Journal
from draftd.telemetry.request_record import RequestRecord, as_json


class Kept:
    def __init__(self) -> None:
        self.changes = 0
        self.ended: list[Sequence[RequestRecord]] = []
        self.told = asyncio.Event()
        self.journal = Journal(self._changed, self._on_ended)

    def _changed(self) -> None:
        self.changes += 1

    def _on_ended(self, records: Sequence[RequestRecord]) -> None:
        self.ended.append(records)
        self.told.set()


async def test_a_request_is_known_from_its_beginning_to_its_end() -> None:
    kept = Kept()
    record = kept.journal.begin("1", "messages", "curl/8")
    assert (kept.journal.since(0), kept.changes) == ([record], 1)
    record.profile, record.phase = "a", "answering"
    kept.journal.note(record)
    record.tokens, record.proposed, record.accepted = 7, 8, 6
    kept.journal.note(record)
    kept.journal.end(record, 200, 1.5)
    await kept.told.wait()
    assert kept.ended == [[record]]
    body = as_json(record)
    assert {name: body[name] for name in ("phase", "status", "seconds", "acceptance", "profile")} == {
        "phase": "ended", "status": 200, "seconds": 1.5, "acceptance": 0.75, "profile": "a",
    }  # fmt: skip
    assert {"task", "version"}.isdisjoint(body)
    assert kept.changes == 4


async def test_requests_that_end_close_together_are_told_together_and_each_once() -> None:
    kept = Kept()
    first, second, third = (kept.journal.begin(name, "messages", "") for name in "123")
    kept.journal.end(first, 200, 0.1)
    kept.journal.end(second, 200, 0.1)
    await kept.told.wait()
    kept.journal.end(third, 200, 0.1)
    kept.journal.tell()  # the daemon stops
    kept.journal.tell()
    assert kept.ended == [[first, second], [third]]


async def test_what_is_new_since_a_look_is_told_once() -> None:
    journal = Kept().journal
    first, second = journal.begin("1", "messages", ""), journal.begin("2", "messages", "")
    seen = journal.version
    assert journal.since(seen) == []
    journal.end(second, 200, 0.1)
    assert journal.since(seen) == [second]
    assert journal.since(0) == [first, second]


async def test_the_oldest_are_forgotten_but_none_that_is_open() -> None:
    journal = Kept().journal
    still_open = journal.begin("open", "messages", "")
    for number in range(MAX_ENDED + 5):
        journal.end(journal.begin(str(number), "messages", ""), 200, 0.1)
    known = journal.since(0)
    assert len(known) == MAX_ENDED + 1
    assert known[0] is still_open
    assert known[1].id == "5"


async def test_only_an_open_request_can_be_cancelled_and_once() -> None:
    journal = Kept().journal
    begun = asyncio.Event()

    async def answer() -> None:
        journal.begin("1", "messages", "")
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(answer())
    await begun.wait()
    assert not journal.cancel("2")
    assert journal.cancel("1")
    assert not journal.cancel("1")
    with pytest.raises(asyncio.CancelledError):
        await task
