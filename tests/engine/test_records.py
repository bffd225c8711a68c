"""The lines on stderr: their form, and that writing them disturbs nobody."""

import json
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from draftd.engine import records
from draftd.engine.generation.acceptance import AcceptanceCount
from draftd.engine.records import generation_record, report_generation
from draftd.protocol import LOOKUP_DRAFTER, MODEL_DRAFTER, PAPER_RULE, RECORD_PREFIX, Costs, acceptance_line


@pytest.mark.parametrize(
    ("accepted", "proposed", "line"),
    [
        (4, 5, "Draft tokens accepted: 4/5 (80%)"),
        (0, 3, "Draft tokens accepted: 0/3 (0%)"),
        (7, 7, "Draft tokens accepted: 7/7 (100%)"),
        (2, 3, "Draft tokens accepted: 2/3 (67%)"),
    ],
)
def test_acceptance_line(accepted: int, proposed: int, line: str) -> None:
    assert acceptance_line(accepted, proposed) == line


def test_record_is_one_line_with_a_prefix_and_json() -> None:
    line = records.record("started", reason="two\nlines")
    prefix, _, text = line.partition(" ")
    assert prefix == "draftd-engine"
    assert "\n" not in text
    assert json.loads(text) == {"event": "started", "reason": "two\nlines"}


def count(*tokens: tuple[str, int, bool], draft_length: int | None = None) -> AcceptanceCount:
    """Count tokens: the drafter of their round, what it proposed, and whether they were drafted."""
    result = AcceptanceCount(draft_length, PAPER_RULE)
    for drafter, proposed, drafted in tokens:
        result.observe(drafter, proposed, drafted=drafted)
    return result


ALONE = ("alone", 0, False)
KEPT, AFTER = (MODEL_DRAFTER, 2, True), (MODEL_DRAFTER, 2, False)
LOOKED_UP = (LOOKUP_DRAFTER, 3, True)


def said(line: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(line.removeprefix(RECORD_PREFIX))
    return made


def test_generation_record_has_the_agreed_keys() -> None:
    counted = count(KEPT, AFTER, ALONE, LOOKED_UP, draft_length=2)
    for rows in (1, 3, 3):
        counted.read(rows)
    assert said(generation_record(counted, None, 0.5, memory={"active": 1, "cache": 2, "peak": 3})) == {
        "event": "generation",
        "rounds": 2,
        "proposed": 5,
        "accepted": 2,
        "drafters": {
            "model": {"rounds": 1, "proposed": 2, "accepted": 1},
            "lookup": {"rounds": 1, "proposed": 3, "accepted": 1},
        },
        "truncated_rounds": 1,
        "draft_length": 2,
        "rule": "paper",
        "accepted_by_position": [2, 0, 0],
        "proposed_by_position": [2, 2, 1],
        "tokens": 4,
        "passes": 3,
        "rows": 7,
        "memory": {"active": 1, "cache": 2, "peak": 3},
    }


def test_costs_and_speedup_stand_in_it_where_they_are_known() -> None:
    counted = count(KEPT, AFTER)
    assert not {"costs", "speedup"} & set(said(generation_record(counted, None, 0.5)))
    record = said(generation_record(counted, Costs(10.0, 1.0, 12.0), 16.0))
    assert record["costs"] == {"single": 10.0, "draft": 1.0, "verify": 12.0}
    assert record["speedup"] == pytest.approx(2 * 10 / 16)
    cut = said(generation_record(count(KEPT), Costs(10.0, 1.0, 12.0), 0.0))
    assert "costs" in cut
    assert "speedup" not in cut, "a first round that was cut has no time"


def test_the_line_for_people_comes_first(capfd: pytest.CaptureFixture[str]) -> None:
    report_generation(count(KEPT, KEPT), None, 1.0, None)
    human, record = capfd.readouterr().err.splitlines()
    assert human == "Draft tokens accepted: 2/2 (100%)"
    assert record.startswith('draftd-engine {"event": "generation", "rounds": 1,')


def test_a_request_without_drafting_has_a_record_and_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    report_generation(count(ALONE), None, 1.0, None)
    (record,) = capfd.readouterr().err.splitlines()
    assert said(record)["tokens"] == 1
    assert said(record)["drafters"] == {}


def test_say_keeps_to_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    records.say("first\nsecond")
    assert capfd.readouterr().err == "draftd-engine: first second\n"


def test_writing_to_nobody_raises_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    records.write("lost", fd=writer)
    os.close(writer)
    records.write("lost", fd=writer)


def test_with_a_channel_records_go_there_as_well(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(records, "_channel", None)  # as it is to be again
    records.report_to(writer)
    report_generation(count(KEPT, KEPT), None, 1.0, None)
    records.report_progress()
    os.close(writer)
    human, *logged = capfd.readouterr().err.splitlines()
    assert human == "Draft tokens accepted: 2/2 (100%)"
    with os.fdopen(reader) as channel:
        sent = channel.read().splitlines()
    assert [json.loads(line)["event"] for line in sent] == ["generation", "progress"]
    assert logged == [RECORD_PREFIX + line for line in sent]
    report_generation(count(KEPT, KEPT), None, 1.0, None)  # nobody listens any more
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_lines_of_one_call_stay_together() -> None:
    reader, writer = os.pipe()
    pairs = 300

    def write(name: str) -> None:
        for number in range(pairs):
            records.write(f"{name} {number} first", f"{name} {number} second", fd=writer)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    with os.fdopen(reader) as log:
        lines = [log.readline().split() for _ in range(2 * pairs * len(threads))]
    for thread in threads:
        thread.join()
    os.close(writer)
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        assert (first[:2], first[2], second[2]) == (second[:2], "first", "second")


MIXED = """
import sys, threading
from draftd.engine import records
records.keep_lines_whole()
def dashes():
    for _ in range(2000):
        print("-" * 40, file=sys.stderr)
threads = [threading.Thread(target=dashes) for _ in range(3)]
for thread in threads: thread.start()
for _ in range(2000): records.say("whole")
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_line_does_not_begin_inside_the_line_of_another_thread(unbuffered: str) -> None:
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        [sys.executable, "-c", MIXED], env=env, stderr=subprocess.PIPE, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert set(lines) == {"-" * 40, "draftd-engine: whole"}
    assert len(lines) == 8000
