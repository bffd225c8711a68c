"""Worker output on its way to the log, the figures and the last words."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
from structlog.testing import capture_logs

from draftd.telemetry.metrics import Metrics
from draftd.telemetry.output import Sink
from draftd.telemetry.records import DraftAcceptance, Record
from tests.harness import ACCEPTANCE


def made(tmp_path: Path) -> tuple[Sink, Metrics]:
    metrics = Metrics("1", "2")
    metrics.declare("a")
    metrics.declare("b")
    return Sink(tmp_path, metrics.record, acceptance, metrics), metrics


def acceptance(worker: str) -> re.Pattern[str] | None:
    """Only lines of worker `a` count."""
    return re.compile(ACCEPTANCE) if worker == "a" else None


def test_lines_are_kept_in_a_file_and_counted_for_their_own_worker(tmp_path: Path) -> None:
    sink, metrics = made(tmp_path)
    sink.feed("a", b"Draft tokens acc")
    sink.feed("b", b"other\nDraft tokens accepted: 3/3 (100%)\n")
    sink.feed("a", b"epted: 4/5 (80%)\nmore\n")
    assert metrics.acceptance("a").accepted == 4
    assert metrics.acceptance("b").proposed == 0
    assert [line.text for line in sink.log("a").tail(5)] == ["Draft tokens accepted: 4/5 (80%)", "more"]
    sink.close()
    assert (tmp_path / "b.log").read_text().endswith(" Draft tokens accepted: 3/3 (100%)\n")


def test_last_words_hold_the_unfinished_line_and_the_next_child_starts_afresh(tmp_path: Path) -> None:
    sink, _ = made(tmp_path)
    sink.feed("a", b"one\ntwo\nMemoryErr")
    assert sink.last_words("a", 2) == ["two", "MemoryErr"]
    sink.feed("a", b"or\n")
    assert [line.text for line in sink.log("a").tail(1)] == ["or"]
    sink.close()


def test_only_lines_that_report_something_are_told_with_the_workers_name(tmp_path: Path) -> None:
    told: list[tuple[str, Record]] = []
    sink = Sink(tmp_path, lambda name, record: told.append((name, record)), acceptance, Metrics("1", "2"))
    sink.feed("a", b"hello\nDraft tokens accepted: 4/5 (80%)\n")
    assert told == [("a", DraftAcceptance(4, 5))]
    sink.close()


def test_names_that_differ_in_case_only_have_files_of_their_own_on_every_disk(tmp_path: Path) -> None:
    sink, _ = made(tmp_path)
    for name in ("a", "A", "b", "a"):
        sink.feed(name, f"of {name}\n".encode())
    sink.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["A~2.log", "a.log", "b.log"]
    assert [line.split(" ", 1)[1] for line in (tmp_path / "A~2.log").read_text().splitlines()] == ["of A"]


def test_a_worker_that_is_forgotten_leaves_its_file_and_nothing_else(tmp_path: Path) -> None:
    sink, _ = made(tmp_path)
    sink.forget("a")  # which has said nothing yet
    sink.feed("a", b"whole\nhal")
    assert _open_files(tmp_path) == ["a.log"]
    sink.forget("a")
    assert _open_files(tmp_path) == []
    sink.feed("a", b"new\n")  # a profile of the same name comes back
    assert [line.text for line in sink.log("a").tail(9)] == ["new"]
    assert [line.split(" ", 1)[1] for line in (tmp_path / "a.log").read_text().splitlines()] == [
        "whole",
        "new",
    ]
    sink.close()


def test_all_files_are_closed_at_the_end(tmp_path: Path) -> None:
    sink, _ = made(tmp_path)
    for name in "ab":
        sink.feed(name, b"x\n")
    assert _open_files(tmp_path) == ["a.log", "b.log"]
    sink.close()
    assert _open_files(tmp_path) == []


def _open_files(folder: Path) -> list[str]:
    paths = [Path(file.path) for file in psutil.Process().open_files()]
    return sorted(path.name for path in paths if path.parent == folder)


def test_a_log_that_cannot_be_written_is_counted_and_serving_goes_on(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    metrics = Metrics("1", "2")
    metrics.declare("a")
    sink = Sink(blocked, metrics.record, acceptance, metrics)
    with capture_logs() as logs:
        sink.feed("a", b"Draft tokens accepted: 1/2 (50%)\n")
    assert [(entry["log_level"], entry["worker"]) for entry in logs] == [("warning", "a")]
    assert metrics.acceptance("a").accepted == 1
    assert b'draftd_log_write_errors_total{profile="a"} 1.0' in metrics.render()[0]
    sink.close()
