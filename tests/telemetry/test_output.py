"""Worker output on its way to the log, the figures and the last words."""

from __future__ import annotations

from pathlib import Path

from draftd.telemetry.metrics import Metrics
from draftd.telemetry.output import Sink


def made(tmp_path: Path) -> tuple[Sink, Metrics]:
    metrics = Metrics("1", "2")
    metrics.declare("a")
    metrics.declare("b")
    return Sink(tmp_path, metrics.record, metrics), metrics


def test_lines_are_kept_in_a_file_and_counted_for_their_own_worker(tmp_path: Path) -> None:
    sink, metrics = made(tmp_path)
    sink.feed("a", b"Draft tokens acc")
    sink.feed("b", b"other\n")
    sink.feed("a", b"epted: 4/5 (80%)\nmore\n")
    assert metrics.acceptance("a").accepted == 4
    assert metrics.acceptance("b").proposed == 0
    assert [line.text for line in sink.log("a").tail(5)] == ["Draft tokens accepted: 4/5 (80%)", "more"]
    sink.close()
    assert (tmp_path / "b.log").read_text().endswith(" other\n")


def test_last_words_hold_the_unfinished_line_and_the_next_child_starts_afresh(tmp_path: Path) -> None:
    sink, _ = made(tmp_path)
    sink.feed("a", b"one\ntwo\nMemoryErr")
    assert sink.last_words("a", 2) == ["two", "MemoryErr"]
    sink.feed("a", b"or\n")
    assert [line.text for line in sink.log("a").tail(1)] == ["or"]
    sink.close()


def test_a_log_that_cannot_be_written_is_counted_and_serving_goes_on(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    metrics = Metrics("1", "2")
    metrics.declare("a")
    sink = Sink(blocked, metrics.record, metrics)
    sink.feed("a", b"Draft tokens accepted: 1/2 (50%)\n")
    assert metrics.acceptance("a").accepted == 1
    assert b'draftd_log_write_errors_total{profile="a"} 1.0' in metrics.render()[0]
    sink.close()
